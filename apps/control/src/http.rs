//! As much of HTTP as a Prometheus server needs: one `GET /metrics` a connection.

/// Whether a request has come to its end: its header has, and it may have no body.
pub(crate) fn is_whole(request: &[u8]) -> bool {
    request.windows(4).any(|bytes| bytes == b"\r\n\r\n") || request.windows(2).any(|bytes| bytes == b"\n\n")
}

/// The response to a whole request.
pub(crate) fn respond(request: &[u8], metrics: impl FnOnce() -> String) -> Vec<u8> {
    let line = request.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with("HTTP/1.")) {
        return refusal("400 Bad Request", "this is no HTTP/1 request");
    }
    let path = target.map(|target| target.split('?').next().unwrap_or_default());
    match (method, path) {
        (Some("GET"), Some("/metrics")) => response("200 OK", CONTENT_TYPE, &metrics(), true),
        (Some("HEAD"), Some("/metrics")) => response("200 OK", CONTENT_TYPE, &metrics(), false),
        (Some("GET" | "HEAD"), _) => refusal("404 Not Found", "the figures are at /metrics"),
        _ => refusal("405 Method Not Allowed", "figures can only be read: GET /metrics"),
    }
}

/// Of Prometheus's text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A response that says no.
pub(crate) fn refusal(status: &str, why: &str) -> Vec<u8> {
    response(status, "text/plain; charset=utf-8", &format!("{why}\n"), true)
}

fn response(status: &str, kind: &str, body: &str, with_body: bool) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let len = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{allow}Connection: close\r\n\r\n"
    );
    [head.as_bytes(), if with_body { body.as_bytes() } else { &[] }].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> String {
        assert!(is_whole(request.as_bytes()), "{request:?}");
        let response = String::from_utf8(respond(request.as_bytes(), || "metrics 1\n".into())).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        assert!(body.len() == len.parse::<usize>().unwrap() || body.is_empty());
        head.lines().next().unwrap().into()
    }

    #[test]
    fn only_the_figures_are_there_and_only_to_be_read() {
        for (request, wanted) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK"),
            ("GET /metrics?x=1 HTTP/1.0\n\n", "HTTP/1.1 200 OK"),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
            ("GET /../etc/passwd HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
            ("GET /metrics\r\n\r\n", "HTTP/1.1 400 Bad Request"),
            ("\r\n\r\n", "HTTP/1.1 400 Bad Request"),
            ("\u{1}\u{2}\n\n", "HTTP/1.1 400 Bad Request"),
        ] {
            assert_eq!(status(request), wanted, "{request:?}");
        }
        assert!(!is_whole(b"GET /metrics HTTP/1.1\r\nHost: a\r\n"));
    }
}
