//! Broker addresses, as `bootstrap.servers` has them.

/// Reads one `host:port`; IPv6 hosts stand in brackets. The error says why, and what to write instead.
pub(crate) fn parse_address(text: &str) -> Result<String, (String, String)> {
    let example = |host: &str| format!("Write host:port, for example {host}:9092");
    let plain = match text.split_once("://") {
        // Kafka ignores the scheme. Ours must not: SSL:// is a wish for TLS.
        Some(("PLAINTEXT", rest)) => rest,
        Some((scheme, rest)) => {
            let why = format!("`{scheme}://` does not choose a protocol here");
            return Err((
                why,
                format!("Write {rest} and describe TLS and SASL in the cluster's own keys"),
            ));
        }
        None => text,
    };
    let Some((host, port)) = plain.rsplit_once(':') else {
        return Err((
            "it has no port".to_owned(),
            example(if plain.is_empty() { "kafka-1" } else { plain }),
        ));
    };
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err((
            "an IPv6 address must stand in brackets".to_owned(),
            format!("Write [{host}]:{port}"),
        ));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if bare.is_empty() || bare.len() > 253 || !bare.chars().all(fits) {
        return Err((format!("`{host}` is not a host name"), example("kafka-1")));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(format!("{host}:{port}")),
        _ => Err((
            format!("`{port}` is not a port from 1 to 65535"),
            example(host),
        )),
    }
}

/// Splits a comma-separated list, as Kafka's LIST type does: blanks around the commas do not count.
pub(crate) fn split_list(text: &str) -> Vec<&str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse_address;

    #[test]
    fn addresses_need_host_and_port() {
        for good in [
            "kafka-1:9092",
            "10.0.0.1:19092",
            "[::1]:9092",
            "[fe80::1%eth0]:9092",
            "a_b.example:1",
        ] {
            assert_eq!(parse_address(good).as_deref(), Ok(good));
        }
        assert_eq!(parse_address("PLAINTEXT://a:1").as_deref(), Ok("a:1"));
        let said = |text| {
            parse_address(text)
                .map_err(|(why, instead)| format!("{why}. {instead}"))
                .unwrap_err()
        };
        assert_eq!(
            said("kafka-1"),
            "it has no port. Write host:port, for example kafka-1:9092"
        );
        assert_eq!(
            said("::1:9092"),
            "an IPv6 address must stand in brackets. Write [::1]:9092"
        );
        assert_eq!(
            said("kafka:0"),
            "`0` is not a port from 1 to 65535. Write host:port, for example kafka:9092"
        );
        assert_eq!(
            said("ka fka:1"),
            "`ka fka` is not a host name. Write host:port, for example kafka-1:9092"
        );
        assert_eq!(
            said("SSL://k:9093"),
            "`SSL://` does not choose a protocol here. Write k:9093 and describe TLS and SASL in the cluster's own keys"
        );
    }
}
