//! Nothing is received on a call, or sent, after it was released.

use rxrpc::Call;

fn read_after_reply(mut call: Call) {
    let _ = call.reply(b"yes");
    let _ = call.recv(&mut [0]);
}

fn main() {}
