//! A client's call against a server's, byte by byte, without anything in between; and each against bytes that are wrong.

use proptest::prelude::*;
use rxperf::{ClientCall, Op, Refusal, ServerCall, Verify, Work, WrongReply};

/// The whole request, given away in pieces of these sizes over and over.
fn request(client: &mut ClientCall, sizes: &[usize]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = vec![0; *sizes.iter().max().unwrap()];
    for &size in sizes.iter().cycle() {
        if client.request_left() == 0 {
            return all;
        }
        let len = client.peek(&mut piece[..size]);
        client.advance(&piece[..len]);
        all.extend(&piece[..len]);
    }
    unreachable!("the sizes never end");
}

fn reply(server: &mut ServerCall, sizes: &[usize]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = vec![0; *sizes.iter().max().unwrap()];
    for &size in sizes.iter().cycle() {
        if server.reply_left() == 0 {
            return all;
        }
        let len = server.peek(&mut piece[..size]);
        server.advance(len);
        all.extend(&piece[..len]);
    }
    unreachable!("the sizes never end");
}

/// Runs a call and lets `damage` have its way with request and reply.
fn run(
    work: Work,
    sizes: &[usize],
    damage: impl Fn(&mut Vec<u8>, &mut Vec<u8>),
) -> Result<Result<(), WrongReply>, Refusal> {
    let mut client = ClientCall::new(work, Verify::Digest, 42);
    let mut server = ServerCall::new();
    let mut there = request(&mut client, sizes);
    damage(&mut there, &mut vec![0; 0]);
    there.chunks(sizes[0]).try_for_each(|piece| server.feed(piece))?;
    server.finish()?;
    let mut back = reply(&mut server, sizes);
    damage(&mut vec![0; 0], &mut back);
    Ok(back.chunks(sizes[0]).try_for_each(|piece| client.feed(piece)).and_then(|()| client.finish()))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![Just(Op::Send), Just(Op::Recv), Just(Op::Rpc), Just(Op::File)]
}

prop_compose! {
    fn work()(op in op(), request_bytes in 0..5000u32, reply_bytes in 0..5000u32, linux_trailer: bool) -> Work {
        Work { op, request_bytes, reply_bytes, linux_trailer }
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..2000usize, 1..5)
}

proptest! {
    #[test]
    fn client_and_server_agree(work in work(), sizes in sizes()) {
        prop_assert_eq!(run(work, &sizes, |_, _| ()), Ok(Ok(())));
    }

    /// Any byte of the payload of an RPC's request, changed, is seen in its reply.
    #[test]
    fn a_damaged_request_shows(request_bytes in 1..3000u32, at: prop::sample::Index, sizes in sizes()) {
        let work = Work { op: Op::Rpc, request_bytes, reply_bytes: 64, linux_trailer: false };
        let damage = |there: &mut Vec<u8>, _: &mut Vec<u8>| {
            if there.len() > 24 {
                let at = 24 + at.index(there.len() - 24);
                there[at] ^= 1;
            }
        };
        let outcome = run(work, &sizes, damage);
        prop_assert!(matches!(outcome, Ok(Err(WrongReply::Byte { .. }))), "{:?}", outcome);
    }

    #[test]
    fn a_damaged_reply_shows(work in work(), at: prop::sample::Index, sizes in sizes()) {
        let damage = |_: &mut Vec<u8>, back: &mut Vec<u8>| {
            if !back.is_empty() {
                let at = at.index(back.len());
                back[at] ^= 1;
            }
        };
        let outcome = run(work, &sizes, damage);
        if work.op == Op::File && work.reply_bytes == 0 {
            prop_assert_eq!(outcome, Ok(Ok(())));
        } else {
            prop_assert!(matches!(outcome, Ok(Err(WrongReply::Byte { .. } | WrongReply::Cookie))), "{:?}", outcome);
        }
    }

    #[test]
    fn a_reply_cut_short_shows(work in work(), cut in 1..10usize, sizes in sizes()) {
        let damage = |_: &mut Vec<u8>, back: &mut Vec<u8>| back.truncate(back.len().saturating_sub(cut));
        let outcome = run(work, &sizes, damage);
        if work.op == Op::File && work.reply_bytes == 0 {
            prop_assert_eq!(outcome, Ok(Ok(())));
        } else {
            prop_assert!(matches!(outcome, Ok(Err(WrongReply::TooShort { .. }))), "{:?}", outcome);
        }
    }

    #[test]
    fn a_request_of_another_length_is_refused(work in work(), change in -9..=9i32, sizes in sizes()) {
        let damage = |there: &mut Vec<u8>, _: &mut Vec<u8>| {
            let len = there.len().saturating_add_signed(change as isize);
            if !there.is_empty() { there.resize(len, 0) }
        };
        // With or without the trailer, both are right.
        let right = change == 0 || change == if work.linux_trailer { -4 } else { 4 };
        let outcome = run(work, &sizes, damage);
        prop_assert_eq!(outcome, if right { Ok(Ok(())) } else { Err(Refusal::Length) });
    }

    #[test]
    fn no_request_makes_the_server_panic(bytes: Vec<u8>, op in 0..6u32, size in 1..40usize) {
        let head: Vec<u8> = [3u32, op, 0, 0].into_iter().flat_map(u32::to_be_bytes).collect();
        for request in [bytes.clone(), [head, bytes].concat()] {
            let mut server = ServerCall::new();
            let fed = request.chunks(size).try_for_each(|piece| server.feed(piece));
            if fed.and_then(|()| server.finish()).is_ok() {
                let mut out = [0; 100];
                let len = server.peek(&mut out);
                server.advance(len);
            }
        }
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn refuses(request: &[u8]) -> Refusal {
    let mut server = ServerCall::new();
    server.feed(request).and_then(|()| server.finish()).expect_err("it refuses")
}

#[test]
fn refusals_have_the_codes_of_other_servers() {
    assert_eq!(refuses(&words(&[2, 0, 0, 0, 0])), Refusal::Version { version: 2 });
    assert_eq!(refuses(&words(&[3, 2, 0, 0, 0])), Refusal::Op { op: 2 });
    assert_eq!(refuses(&words(&[3, 0, 0, 0, 1])), Refusal::Length);
    assert_eq!(refuses(&words(&[3, 0, 0, 0])), Refusal::Length);
    assert_eq!(refuses(&words(&[3, 4, 0, 0, 5, 1, 0, 1, 0, 1])), Refusal::Turns);
    let codes =
        [Refusal::Version { version: 2 }, Refusal::Op { op: 2 }, Refusal::Length].map(Refusal::abort_code);
    assert_eq!(codes, [-6, -455, -453]);
}

/// The requests of OpenAFS's client: an RPC of 64 and 64 bytes, 20,000 bytes sent, 20,000 received.
#[test]
fn the_requests_of_openafs_are_understood() {
    for (head, payload, reply_len) in [
        (&[3, 3, 0x80000, 0x80000, 64, 64][..], 64, 68),
        (&[3, 0, 0x80000, 0x80000, 20_000], 20_000, 4),
        (&[3, 1, 0x80000, 0x80000, 20_000], 0, 20_004),
        // FILE: two words there, three back.
        (&[3, 4, 0x80000, 0x80000, 3, 2, 0, 3], 8, 12),
    ] {
        let mut server = ServerCall::new();
        server.feed(&words(head)).and_then(|()| server.feed(&vec![0; payload])).unwrap();
        assert_eq!(server.reply_left(), 0, "the request is not over");
        server.finish().unwrap();
        let back = reply(&mut server, &[777]);
        assert_eq!(back.len(), reply_len);
        assert!(head[1] == 4 || back.ends_with(&[0, 0, 0x47, 0x11]));
    }
}

#[test]
fn the_request_is_the_one_of_openafs() {
    let mut client = ClientCall::new(Work::rpc(64, 32), Verify::Zeros, 1);
    let request = request(&mut client, &[1000]);
    assert_eq!(request[..24], words(&[3, 3, 0x80000, 0x80000, 64, 32]));
    assert_eq!(request.len(), 24 + 64);
    let mut back = vec![0; 32];
    back.extend([0, 0, 0x47, 0x11]);
    client.feed(&back).and_then(|()| client.finish()).unwrap();
    assert_eq!(client.feed(&[0]), Err(WrongReply::TooLong { expected: 32 }));
}

#[test]
fn bytes_that_should_be_zeros_are_named() {
    let mut client = ClientCall::new(Work::rpc(0, 32), Verify::Zeros, 1);
    client.feed(&[0; 7]).unwrap();
    assert_eq!(client.feed(&[0, 0, 5]), Err(WrongReply::Byte { position: 9, found: 5 }));
}
