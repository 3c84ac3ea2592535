//! What a broker says in a login.

use strait_net::scram_exchange;

use super::within;

/// Messages are quoted, decoded and joined.
const FOR_EACH_BYTE: usize = 12;
const FIXED: usize = 2048;
/// Ours, that of the example in RFC 7677.
const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

/// A SCRAM login: SHA-512 or not, the length of the server's first message, that message and its last one.
pub(super) fn scram(data: &[u8]) {
    let &[sha512, length, ref rest @ ..] = data else {
        return;
    };
    let (first, last) = rest.split_at(rest.len().min(usize::from(length)));
    let allowed = FIXED + FOR_EACH_BYTE * data.len();
    let login = within("a SCRAM login", allowed, || {
        scram_exchange(sha512 & 1 == 1, NONCE, first, last)
    });
    assert!(
        login.is_err(),
        "who does not know the password is not believed"
    );
}
