//! Who asks: a token in a header, and the role that it gives.

use std::fmt;
use std::hint::black_box;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The user's name in `Basic token:T`.
const BASIC_USER: &[u8] = b"token:";

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To look.
    Viewer,
    /// To look and to change.
    Manager,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Manager => "manager",
        })
    }
}

/// The two tokens.
#[derive(Clone)]
pub struct Access {
    viewer: Vec<u8>,
    manager: Vec<u8>,
}

impl Access {
    /// Gives the bearer of each token its role.
    pub fn new(viewer: &str, manager: &str) -> Self {
        Self {
            viewer: viewer.into(),
            manager: manager.into(),
        }
    }

    /// The role of whoever sent these headers: `Authorization: Bearer T`, `T` or `Basic` with `token:T` in Base64, else
    /// `X-Auth-Token: T`.
    pub(crate) fn role(&self, headers: &HeaderMap) -> Option<Role> {
        let token = presented(headers)?;
        // Both are compared, whichever it is.
        let (viewer, manager) = (same(&token, &self.viewer), same(&token, &self.manager));
        match (viewer, manager) {
            (_, true) => Some(Role::Manager),
            (true, false) => Some(Role::Viewer),
            (false, false) => None,
        }
    }
}

/// The token that the headers bring.
fn presented(headers: &HeaderMap) -> Option<Vec<u8>> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Some(
            headers
                .get("x-auth-token")?
                .as_bytes()
                .trim_ascii()
                .to_vec(),
        );
    };
    let value = value.as_bytes().trim_ascii();
    let space = value.iter().position(u8::is_ascii_whitespace);
    let Some((scheme, rest)) = space.and_then(|at| value.split_at_checked(at)) else {
        return Some(value.to_vec());
    };
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = STANDARD.decode(rest).ok()?;
        return pair.strip_prefix(BASIC_USER).map(<[u8]>::to_vec);
    }
    None
}

/// Whether two tokens are the same, in a time that depends on the length of what was presented only.
fn same(presented: &[u8], token: &[u8]) -> bool {
    let mut differ = usize::from(presented.len() != token.len());
    let repeated = token.iter().cycle();
    for (a, b) in presented.iter().zip(repeated) {
        differ |= usize::from(black_box(a ^ b));
    }
    black_box(differ) == 0 && !token.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn role(header: &'static str, value: &str) -> Option<Role> {
        let access = Access::new("look-0123456789", "change-0123456789");
        let mut headers = HeaderMap::new();
        headers.insert(header, HeaderValue::from_str(value).unwrap());
        access.role(&headers)
    }

    #[test]
    fn every_form_of_a_token_is_known() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (token, wanted) in [
            ("look-0123456789", Some(Role::Viewer)),
            ("change-0123456789", Some(Role::Manager)),
            ("change-012345678", None),
            ("change-0123456789x", None),
            ("look-0123456788", None),
        ] {
            assert_eq!(role("authorization", &format!("Bearer {token}")), wanted);
            assert_eq!(role("authorization", &format!("bearer  {token}")), wanted);
            assert_eq!(role("authorization", token), wanted);
            assert_eq!(role("x-auth-token", token), wanted);
            assert_eq!(
                role("authorization", &basic(&format!("token:{token}"))),
                wanted
            );
            assert_eq!(
                role("authorization", &basic(&format!("user:{token}"))),
                None
            );
            assert_eq!(role("authorization", &format!("Digest {token}")), None);
        }
        assert_eq!(role("authorization", "Basic ???"), None);
        assert_eq!(role("authorization", ""), None);
        assert_eq!(role("authorization", "Bearer "), None);
        assert_eq!(role("host", "look-0123456789"), None);
    }

    #[test]
    fn authorization_comes_before_the_other_header() {
        let access = Access::new("look-0123456789", "change-0123456789");
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-auth-token",
            HeaderValue::from_static("change-0123456789"),
        );
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer wrong"));
        assert_eq!(access.role(&headers), None);
    }
}
