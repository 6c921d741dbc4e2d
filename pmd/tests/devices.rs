//! Two network devices joined by a cable, under the suite that all drivers pass. Which they are is said from outside:
//!
//! `DEVICES="igb:0000:01:00.0,promisc=1 igb:0000:02:00.0,promisc=1" cargo test -p pmd --features device-tests --test devices`
//!
//! `DEVICES_LINK` is a command that takes the link down or up (its argument is `off` or `on`), for instance a switch's. `DEVICES_UNCOUNTED=1`
//! is for devices that do not count what they have no room for, as emulated ones.

mod suite;

use std::process::Command;

use suite::Wire;

fn urls() -> [String; 2] {
    let devices = std::env::var("DEVICES").expect("DEVICES names two URLs, with a space between them");
    let urls: Vec<String> = devices.split(' ').map(str::to_owned).collect();
    urls.try_into().expect("two URLs")
}

fn wire() -> Wire {
    let command = std::env::var("DEVICES_LINK").expect("DEVICES_LINK is a command that is given off or on");
    let set_link = move |up| {
        let script = format!("{command} {}", if up { "on" } else { "off" });
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success(), "{script}");
    };
    Wire {
        set_link: Some(Box::new(set_link)),
        uncounted: std::env::var_os("DEVICES_UNCOUNTED").is_some(),
        killed: &[0, 1],
        ..Wire::new(urls())
    }
}

/// One after the other: both have the same two devices.
#[test]
fn two_devices_on_a_cable() {
    suite::run(&wire());
    suite::run(&Wire { mtu: Some(9000), ..wire() });
}

#[test]
#[ignore = "a child process of the suite"]
fn the_process_that_is_killed() {
    suite::echo_until_killed();
}
