//! Who may ask for what: the names we answer to, the token, and whose page may speak for it.
//!
//! A browser in the machine room also shows pages of strangers. Such a page can send requests here,
//! and with a name of its own that it lets point here (DNS rebinding) it could read the answers. So
//! people are answered only by names that no stranger can own: addresses, names without dots or
//! below the domains for private use (RFC 6762, 8375, 6761; ICANN's `internal`), our own host name,
//! and what `--allow-host` names. Machines are told something only by who has the token, which
//! travels in a header that no foreign page can set. It travels in the clear, so it counts on this
//! machine only, and where `--control` says.

use super::{Ends, Server, refuse};
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use axum::middleware::Next;
use axum::response::Response;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use swarm::networks::Network;

/// Answers what is asked by a wrong name, or without the token where it is needed; lets the rest
/// pass.
pub(super) async fn check(
    State(server): State<Arc<Server>>,
    Extension(ends): Extension<Ends>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = host_name();
    if !is_ours(host, &own, &server.config.names) {
        let why =
            format!("`{}` is no name of this server; --allow-host adds it", host.escape_debug());
        return refuse(StatusCode::MISDIRECTED_REQUEST, &why);
    }
    let path = request.uri().path();
    if path == "/api/report" || is_static(path) {
        return next.run(request).await;
    }
    let orders = path == "/api/actions";
    if orders && headers.get(ORIGIN).is_some_and(|origin| !is_same(origin.as_bytes(), host)) {
        return refuse(StatusCode::FORBIDDEN, "orders come from this server's own page");
    }
    if orders && !may_order(ends, &server.config.control) {
        let from = ends.remote.to_canonical();
        let why = format!(
            "orders are taken on the server itself; with `ezio serve --control {from}` from here, too"
        );
        return refuse(StatusCode::FORBIDDEN, &why);
    }
    if (orders || server.config.private) && !has_token(headers, &server.config.token) {
        let why = "the token is missing or wrong; `ezio serve` has printed it";
        return refuse(StatusCode::UNAUTHORIZED, why);
    }
    next.run(request).await
}

/// The page itself is the same for everybody, and holds nothing.
fn is_static(path: &str) -> bool {
    matches!(path, "/" | "/dashboard.js" | "/chart.js" | "/dashboard.css" | "/api/openapi.json")
}

/// Whether the token counts there: on this machine, by whichever of its addresses, and in `networks`.
fn may_order(ends: Ends, networks: &[Network]) -> bool {
    let Ends { remote, local } = ends;
    remote.to_canonical().is_loopback()
        || remote == local
        || networks.iter().any(|network| network.contains(remote))
}

fn is_same(origin: &[u8], host: &str) -> bool {
    origin
        .strip_prefix(b"http://")
        .is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_bytes()))
}

fn is_ours(host: &str, own: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((inner, _)) = rest.split_once(']') else { return false };
            return inner.parse::<Ipv6Addr>().is_ok();
        }
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.is_empty() || !name.chars().all(letters) {
        return false;
    }
    name.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || PRIVATE.iter().any(|domain| name.ends_with(domain))
        || name.eq_ignore_ascii_case(own)
        || names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

const PRIVATE: [&str; 4] = [".local", ".internal", ".home.arpa", ".localhost"];

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// RFC 6750. Compared in a time that does not tell how much of it is right.
fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
    let Some(given) = given.strip_prefix(b"Bearer ") else { return false };
    let differ = given.iter().zip(token.as_bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    !token.is_empty() && given.len() == token.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_stranger_owns_are_ours() {
        let check =
            |host: &str| is_ours(host, "images.school.example", &["pxe.example.org".into()]);
        for host in [
            "10.0.0.1:6969",
            "127.0.0.1",
            "[::1]:6969",
            "[fe80::1]",
            "server:6969",
            "localhost",
            "a.local",
            "lab.internal:80",
            "images.school.example",
            "PXE.example.org:6969",
            "x.local.",
        ] {
            assert!(check(host), "{host}");
        }
        for host in [
            "",
            ":6969",
            "evil.example",
            "evil.example:6969",
            "10.0.0.1.evil.example",
            "[::1",
            "[evil.example]",
            "a b",
            "<x>",
            "local.evil.example",
            "notpxe.example.org",
        ] {
            assert!(!check(host), "{host}");
        }
    }

    #[test]
    fn orders_come_from_this_machine_unless_told_otherwise() {
        let check = |remote: &str, local: &str, networks: &[&str], wanted: bool| {
            let ends = Ends { remote: remote.parse().unwrap(), local: local.parse().unwrap() };
            let networks: Vec<Network> = networks.iter().map(|n| n.parse().unwrap()).collect();
            assert_eq!(may_order(ends, &networks), wanted, "{remote} {local} {networks:?}");
        };
        check("127.0.0.1", "127.0.0.1", &[], true);
        check("127.3.0.2", "127.0.0.1", &[], true);
        check("::1", "::1", &[], true);
        check("::ffff:127.0.0.1", "::ffff:127.0.0.1", &[], true);
        check("10.0.0.1", "10.0.0.1", &[], true);
        check("10.0.0.2", "10.0.0.1", &[], false);
        check("10.0.0.2", "10.0.0.1", &["10.1.0.0/16"], false);
        check("10.0.0.2", "10.0.0.1", &["10.1.0.0/16", "10.0.0.2"], true);
        check("fd00::2", "fd00::1", &["0.0.0.0/0"], false);
        check("127.0.0.1", "127.0.0.1", &["10.0.0.0/8"], true);
    }

    #[test]
    fn the_token_must_be_whole_and_an_origin_the_same() {
        let check = |value: &str, token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            has_token(&headers, token)
        };
        assert!(check("Bearer abc", "abc"));
        for wrong in ["Bearer ab", "Bearer abcd", "Bearer ", "abc", "Basic abc"] {
            assert!(!check(wrong, "abc"), "{wrong}");
        }
        assert!(!check("Bearer ", "") && !has_token(&HeaderMap::new(), "abc"));
        assert!(is_same(b"http://Server:6969", "server:6969"));
        for other in [&b"https://server:6969"[..], b"http://server", b"null", b"http://evil"] {
            assert!(!is_same(other, "server:6969"));
        }
    }
}
