//! A call is released once: whatever releases it takes the handle.

use rxrpc::Call;

fn aborted_twice(call: Call) {
    call.abort(1);
    call.abort(2);
}

fn answered_and_dropped(call: Call) {
    let _ = call.reply(b"yes");
    drop(call);
}

fn main() {}
