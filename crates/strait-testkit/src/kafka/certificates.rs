//! Certificates for the SSL listeners, made with the JDK's `keytool`.

use super::error::HarnessError;
use super::install;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;

/// A certificate authority and a server certificate of it for `localhost` and 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// The authority's certificate, for clients to trust.
    pub(crate) ca_pem: PathBuf,
    /// The server's key and chain, PKCS#12.
    pub(crate) keystore: PathBuf,
}

impl Certificates {
    /// The password of the keystore: it guards test keys only.
    pub(crate) const PASSWORD: &str = "strait-test";

    /// Makes them once per process.
    pub(crate) fn shared() -> Result<&'static Self, HarnessError> {
        static SHARED: Mutex<Option<&'static Certificates>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificates) = *shared {
            return Ok(certificates);
        }
        // Kept for the life of the process, which has no end at which to remove it: a few kilobytes.
        let dir = TempDir::with_prefix("strait-kafka-tls-")
            .map_err(HarnessError::io("make a folder for certificates"))?;
        let made: &'static Self = Box::leak(Box::new(Self::make(&dir.keep())?));
        *shared = Some(made);
        Ok(made)
    }

    fn make(dir: &Path) -> Result<Self, HarnessError> {
        let at = |name: &str| dir.join(name);
        let (authority, keystore, ca_pem) = (at("ca.p12"), at("server.p12"), at("ca.pem"));
        let (request, signed) = (at("server.csr"), at("server.pem"));
        let pair = [
            "-keyalg",
            "EC",
            "-groupname",
            "secp256r1",
            "-validity",
            "3650",
        ];
        let names = "SAN=dns:localhost,ip:127.0.0.1";
        let key = |store: &Path| Keytool::on(store);
        key(&authority)
            .args(&[
                "-genkeypair",
                "-alias",
                "ca",
                "-dname",
                "CN=Strait test CA",
                "-ext",
                "bc:c",
                "-ext",
                "ku:c=keyCertSign",
            ])
            .args(&pair)
            .run("make a certificate authority")?;
        key(&authority)
            .args(&["-exportcert", "-alias", "ca", "-rfc"])
            .path("-file", &ca_pem)
            .run("export the authority")?;
        key(&keystore)
            .args(&["-genkeypair", "-alias", "server", "-dname", "CN=localhost"])
            .args(&pair)
            .run("make a server key")?;
        key(&keystore)
            .args(&["-certreq", "-alias", "server"])
            .path("-file", &request)
            .run("request a certificate")?;
        key(&authority)
            .args(&[
                "-gencert",
                "-alias",
                "ca",
                "-rfc",
                "-validity",
                "3650",
                "-ext",
                names,
                "-ext",
                "eku=serverAuth",
            ])
            .path("-infile", &request)
            .path("-outfile", &signed)
            .run("sign the server's certificate")?;
        let import = ["-importcert", "-noprompt", "-alias"];
        key(&keystore)
            .args(&import)
            .args(&["ca"])
            .path("-file", &ca_pem)
            .run("import the authority")?;
        key(&keystore)
            .args(&import)
            .args(&["server"])
            .path("-file", &signed)
            .run("import the server's certificate")?;
        Ok(Self { ca_pem, keystore })
    }
}

struct Keytool(Command);

impl Keytool {
    fn on(store: &Path) -> Self {
        let mut command = Command::new("keytool");
        command.args([
            "-J-XX:TieredStopAtLevel=1",
            "-storetype",
            "PKCS12",
            "-storepass",
            Certificates::PASSWORD,
        ]);
        Self(command).path("-keystore", store)
    }

    fn args(mut self, args: &[&str]) -> Self {
        self.0.args(args);
        self
    }

    fn path(mut self, flag: &str, path: &Path) -> Self {
        self.0.arg(flag).arg(path);
        self
    }

    fn run(mut self, what: &'static str) -> Result<(), HarnessError> {
        let output = self
            .0
            .output()
            .map_err(|_| install::missing("the program keytool (of a JDK)".to_owned()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(HarnessError::Keytool {
            what,
            output: String::from_utf8_lossy(&said).into_owned(),
        })
    }
}
