//! A process without privileges takes a port from one that has them.

use super::*;

/// Gives up everything that root has, for good.
fn become_nobody() {
    // SAFETY: plain system calls on this process, which has one thread that matters.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(65534, 65534, 65534), 0);
        assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
    }
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
}

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn the_process_without_privileges() {
    become_nobody();
    let url = std::env::var("CONFORMANCE_URL").unwrap();
    let own = url.split(',').next().unwrap();
    let told = refusal(own, &OpenOptions::default());
    assert!(told.contains("CAP_NET_RAW") && told.contains("setcap"), "{told}");
    let mut port = pmd::open(&url, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let regions = port.memory();
    assert!(port.memory().is_empty(), "handed out once");
    let mut pools: Vec<Pool> = regions
        .into_iter()
        .map(|region| {
            let buffers = region.len() / STRIDE;
            PoolConfig::new("taken", buffers).build_on(region).unwrap().claim()
        })
        .collect();
    let strange = suite::pool(256);
    let elsewhere = port.open_queues(&vec![strange.handle(); pools.len()]).err().unwrap().to_string();
    assert!(elsewhere.contains("Port::memory"), "{elsewhere}");
    let handles: Vec<_> = pools.iter().map(|pool| pool.handle()).collect();
    let mut queues = port.open_queues(&handles).unwrap_or_else(|error| panic!("{error}"));
    println!("open");
    // Everything back, until a frame says that it is enough.
    let (start, mut enough) = (Wall::now(), false);
    while !enough && start.elapsed() < Duration::from_secs(20) {
        for (queue, pool) in queues.iter_mut().zip(&mut pools) {
            let mut burst = Burst::new();
            queue.rx_burst(Clock::now(), pool, &mut burst);
            enough |= burst.iter().any(|mbuf| mbuf.data().ends_with(b"enough"));
            queue.tx_burst(Clock::now(), &mut burst);
        }
    }
    assert!(enough && port.info().notes.iter().any(|note| note.starts_with("taken from")));
    drop((queues, port));
    assert!(pools.iter_mut().all(|pool| pool.available() == pool.capacity()), "every buffer is home");
    println!("closed");
}

#[test]
fn a_process_without_privileges_takes_the_port_from_one_that_has_them() {
    let veth = Pair::new("un", "");
    let mut pool = suite::pool(1024);
    for killed in [false, true] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let url = veth.url(0, ",from=0");
        let mut taker =
            child("takeover::the_process_without_privileges", &url, Stdio::from(OwnedFd::from(theirs)));
        pmd::hand_over(&veth.url(0, ""), &OpenOptions::default(), 1024, &ours)
            .unwrap_or_else(|error| panic!("{error}"));
        drop(ours);
        assert!(wait_for_line(&mut taker, "open"), "it took the port over");
        assert!(veth.is_attached(0));
        let (_far, mut far) = open(&veth.url(1, ""), &pool);
        for round in 0..50u8 {
            for _ in 0..32 {
                send(&mut *far, &mut pool, &[round; 200]);
            }
            let back = gather(&mut *far, &mut pool, 32);
            assert!(back.len() == 32 && back.iter().all(|frame| *frame == [round; 200]), "{}", back.len());
        }
        if killed {
            taker.kill().unwrap();
        } else {
            send(&mut *far, &mut pool, &[&[3; 60][..], b"enough"].concat());
            assert!(wait_for_line(&mut taker, "closed"));
        }
        taker.wait().unwrap();
        assert!(!veth.is_attached(0), "it went with the process that had taken it");
    }
}

#[test]
fn a_parent_that_ends_without_a_word_is_an_error() {
    let veth = Pair::new("pa", "");
    for said in [&b""[..], b"rxline-af_xdp 9\nend\n", b"rxline-af_xdp 1\nport 1 x\nend\n"] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut &ours, said).unwrap();
        drop(ours);
        let told = refusal(&veth.url(0, &format!(",from={}", theirs.as_raw_fd())), &OpenOptions::default());
        assert!(told.contains("taking") || told.contains("not understood"), "{told}");
    }
}
