//! A call that is answered on its core stays on the core's thread.

use rxrpc::Service;

fn answer_elsewhere(service: Service) {
    let _ = service.serve(|call| {
        std::thread::scope(|scope| {
            scope.spawn(|| call.reply(b"from another thread"));
        });
    });
}

fn main() {}
