//! The client's side of SCRAM (RFC 5802, RFC 7677), without channel binding: bytes in, bytes out.
//!
//! Like Kafka's own client it does not apply SASLprep: names and passwords are taken as UTF-8.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256, Sha512};

/// RFC 7677 section 4 asks for at least 4096; fewer would help who posed as the broker to guess the
/// password.
const MIN_ITERATIONS: u32 = 4_096;
/// Kafka stores at most 16,384. More than this would only be asked for to keep us busy.
const MAX_ITERATIONS: u32 = 1 << 18;

/// `n,,` in base64: no channel binding.
const GS2_HEADER: &str = "n,,";
const GS2_HEADER_BASE64: &str = "biws";

/// One SCRAM exchange.
pub(crate) struct Scram {
    sha512: bool,
    password: String,
    nonce: String,
    first_bare: String,
    /// What the server must prove, known after its first message.
    server_key_and_message: Option<(Vec<u8>, String)>,
}

impl Scram {
    /// An exchange for this user. `nonce` must be fresh, random, and hold no comma.
    pub(crate) fn new(sha512: bool, user: &str, password: &str, nonce: String) -> Self {
        let name = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            sha512,
            password: password.to_owned(),
            first_bare: format!("n={name},r={nonce}"),
            nonce,
            server_key_and_message: None,
        }
    }

    /// The first message to the server.
    pub(crate) fn client_first(&self) -> Vec<u8> {
        format!("{GS2_HEADER}{}", self.first_bare).into_bytes()
    }

    /// Takes the server's first message and answers it with our proof.
    pub(crate) fn client_final(&mut self, server_first: &[u8]) -> Result<Vec<u8>, String> {
        let first = ServerFirst::read(server_first, &self.nonce)?;
        self.prove(&first)
    }

    fn prove(&mut self, first: &ServerFirst) -> Result<Vec<u8>, String> {
        let (text, nonce) = (first.text, first.nonce);
        let salted = self.salted_password(&first.salt, first.iterations);
        let client_key = self.hmac(&salted, b"Client Key")?;
        let stored_key = if self.sha512 {
            Sha512::digest(&client_key).to_vec()
        } else {
            Sha256::digest(&client_key).to_vec()
        };
        let without_proof = format!("c={GS2_HEADER_BASE64},r={nonce}");
        let message = format!("{},{text},{without_proof}", self.first_bare);
        let signature = self.hmac(&stored_key, message.as_bytes())?;
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(a, b)| a ^ b)
            .collect();
        self.server_key_and_message = Some((self.hmac(&salted, b"Server Key")?, message));
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes())
    }

    /// Checks the server's last message: it must prove that it knows the password, too.
    pub(crate) fn finish(&self, server_final: &[u8]) -> Result<(), String> {
        let text = utf8(server_final)?;
        if let Ok(error) = attribute(text, 'e') {
            return Err(format!("the broker answered: {error}"));
        }
        let signature = BASE64
            .decode(attribute(text, 'v')?)
            .map_err(|_| "its signature is not base64".to_owned())?;
        let Some((key, message)) = &self.server_key_and_message else {
            return Err("its last message came first".to_owned());
        };
        let matches = if self.sha512 {
            verify::<Hmac<Sha512>>(key, message.as_bytes(), &signature)
        } else {
            verify::<Hmac<Sha256>>(key, message.as_bytes(), &signature)
        };
        if matches {
            Ok(())
        } else {
            Err("the broker does not know this password: it may be somebody else".to_owned())
        }
    }

    fn salted_password(&self, salt: &[u8], iterations: u32) -> Vec<u8> {
        let password = self.password.as_bytes();
        if self.sha512 {
            pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, salt, iterations).to_vec()
        } else {
            pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations).to_vec()
        }
    }

    fn hmac(&self, key: &[u8], message: &[u8]) -> Result<Vec<u8>, String> {
        if self.sha512 {
            mac::<Hmac<Sha512>>(key, message).map(|m| m.finalize().into_bytes().to_vec())
        } else {
            mac::<Hmac<Sha256>>(key, message).map(|m| m.finalize().into_bytes().to_vec())
        }
        .ok_or_else(|| "the key cannot be used".to_owned())
    }
}

/// The server's first message.
struct ServerFirst<'a> {
    text: &'a str,
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    /// Reads a message that answers `our_nonce`.
    fn read(message: &'a [u8], our_nonce: &str) -> Result<Self, String> {
        let text = utf8(message)?;
        let nonce = attribute(text, 'r')?;
        let salt = BASE64
            .decode(attribute(text, 's')?)
            .map_err(|_| "its salt is not base64".to_owned())?;
        let iterations: u32 = attribute(text, 'i')?
            .parse()
            .map_err(|_| "its iteration count is not a number".to_owned())?;
        if nonce.len() <= our_nonce.len() || !nonce.starts_with(our_nonce) {
            return Err("its nonce does not continue ours".to_owned());
        }
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(format!(
                "it asks for {iterations} iterations, where {MIN_ITERATIONS} to {MAX_ITERATIONS} are accepted"
            ));
        }
        Ok(Self {
            text,
            nonce,
            salt,
            iterations,
        })
    }
}

/// An exchange with a server that says this, for tests that give it hostile bytes: as a connection does it, but for one
/// iteration, whatever number is asked for.
///
/// # Errors
/// What is wrong with the server's messages.
#[doc(hidden)]
pub fn scram_exchange(
    sha512: bool,
    nonce: &str,
    server_first: &[u8],
    server_final: &[u8],
) -> Result<(), String> {
    let mut scram = Scram::new(sha512, "user", "pencil", nonce.to_owned());
    let proved = ServerFirst::read(server_first, nonce).and_then(|mut first| {
        first.iterations = 1;
        scram.prove(&first)
    });
    let finished = scram.finish(server_final);
    proved.and(finished)
}

fn mac<M: Mac + hmac::digest::KeyInit>(key: &[u8], message: &[u8]) -> Option<M> {
    let mut mac = <M as Mac>::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac)
}

/// Compares in constant time.
fn verify<M: Mac + hmac::digest::KeyInit>(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    mac::<M>(key, message).is_some_and(|m| m.verify_slice(signature).is_ok())
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "its message is not UTF-8".to_owned())
}

fn attribute(message: &str, name: char) -> Result<&str, String> {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        .ok_or_else(|| format!("its message has no attribute '{name}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677 section 3.
    #[test]
    fn sha256_example_of_the_rfc() {
        let mut scram = Scram::new(false, "user", "pencil", "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(scram.client_first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let answer = scram
            .client_final(
                b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            )
            .unwrap();
        assert_eq!(
            std::str::from_utf8(&answer).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram
            .finish(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
            .unwrap();
        let forged = scram.finish(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=");
        assert!(forged.is_err());
    }

    /// Computed with Python's hashlib and hmac after RFC 5802 section 3.
    #[test]
    fn sha512_against_an_independent_computation() {
        let mut scram = Scram::new(
            true,
            "anna,=",
            "pässword",
            "fyko+d2lbbFgONRv9qkxdawL".into(),
        );
        assert_eq!(
            scram.client_first(),
            b"n,,n=anna=2C=3D,r=fyko+d2lbbFgONRv9qkxdawL"
        );
        let answer = scram
            .client_final(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=8192")
            .unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), SHA512_FINAL);
        scram.finish(SHA512_VERIFIER).unwrap();
    }

    const SHA512_FINAL: &str = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=cdi6hvu/AvXqPcBJCwI0r7xzxs4Y8GpY/k7u38wRODW7MFk/ava84nHBpuWqQ7QJAhlwTtDS0/JsS/KJSLEZgw==";
    const SHA512_VERIFIER: &[u8] = b"v=HIbsaDk0rCPjBLUYG0iKM8lH1WO68v0X91navGduxbuRwe0us8hl/5wGqUm2uF3RtL4znNVk1IoVwreoTW6L7A==";

    #[test]
    fn a_hostile_server_is_refused() {
        let first = |answer: &[u8]| {
            Scram::new(false, "u", "p", "abc".into())
                .client_final(answer)
                .unwrap_err()
        };
        assert!(first(b"r=abcdef,s=QSXCR+Q6sek8bf92,i=2000000000").contains("iterations"));
        assert!(first(b"r=abcdef,s=QSXCR+Q6sek8bf92,i=1").contains("iterations"));
        assert!(first(b"r=abc,s=QSXCR+Q6sek8bf92,i=4096").contains("nonce"));
        assert!(first(b"r=xyzdef,s=QSXCR+Q6sek8bf92,i=4096").contains("nonce"));
        assert!(first(b"r=abcdef,s=!!,i=4096").contains("salt"));
        assert!(first(b"\xff\xfe").contains("UTF-8"));
        assert!(first(b"").contains("attribute"));
        let early = Scram::new(false, "u", "p", "abc".into());
        assert!(early.finish(b"v=AAAA").is_err());
        assert!(
            early
                .finish(b"e=unknown-user")
                .unwrap_err()
                .contains("unknown-user")
        );
    }
}
