#!/usr/bin/env bash
# Fetches what the tests against real Kafka need: Java, Maven, Kafka's jars, the compiled Java of this folder.
# Quick when all of it is there. STRAIT_KAFKA_DIR moves the result away from <workspace>/.kafka.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
dir="${STRAIT_KAFKA_DIR:-$(cd "$here/../../.." && pwd)/.kafka}"
versions=(4.3.1 3.9.2)
sources=(Node.java Warmup.java Oracle.java oracle org)

java_major() {
    command -v javac >/dev/null && command -v keytool >/dev/null || { echo 0; return; }
    javac -version 2>&1 | sed -E 's/^javac (1\.)?([0-9]+).*/\2/'
}

missing=()
[ "$(java_major)" -ge 17 ] || missing+=(default-jdk-headless)
command -v mvn >/dev/null || missing+=(maven)
if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    else
        echo "setup: missing: ${missing[*]}. Install a JDK 17 or newer (with javac and keytool) and Maven, then run 'just setup' again." >&2
        echo "setup: on Debian or Ubuntu: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
fi
if [ "$(java_major)" -lt 17 ]; then
    echo "setup: the javac on PATH is older than 17; Kafka's brokers need 17. Put a newer JDK first on PATH." >&2
    exit 1
fi

mkdir -p "$dir"
if command -v flock >/dev/null; then
    exec 9>"$dir/.lock"
    flock 9 # two checks may share one directory
fi

for version in "${versions[@]}"; do
    stamp="$dir/$version/pom.xml"
    cmp -s "$here/pom.xml" "$stamp" && continue
    echo "setup: resolving the jars of Kafka $version"
    rm -rf "${dir:?}/$version"
    mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies \
        -Dkafka.version="$version" -DincludeScope=runtime -DoutputDirectory="$dir/$version/libs"
    cp "$here/pom.xml" "$stamp" # last: a broken download leaves no stamp
done

# The sources lie beside the jar: the harness refuses to run a jar made of others.
fresh=1
for source in "${sources[@]}"; do
    diff -rq "$here/$source" "$dir/java/$source" >/dev/null 2>&1 || fresh=0
done
[ -f "$dir/strait-harness.jar" ] || fresh=0
if [ "$fresh" -eq 0 ]; then
    echo "setup: compiling the harness's Java"
    rm -rf "$dir/java" "$dir/classes" "$dir/strait-harness.jar"
    mkdir -p "$dir/java" "$dir/classes"
    (cd "$here" && find "${sources[@]}" -name '*.java' -print0 |
        xargs -0 javac -proc:none --release 17 -cp "$dir/${versions[0]}/libs/*" -d "$dir/classes")
    jar --create --file "$dir/strait-harness.jar.new" -C "$dir/classes" .
    (cd "$here" && cp -r "${sources[@]}" "$dir/java/")
    rm -rf "$dir/classes"
    mv "$dir/strait-harness.jar.new" "$dir/strait-harness.jar"
fi

# An authority and a certificate of it for the brokers' SSL listeners; the keys guard nothing but test data.
if [ ! -f "$dir/tls/server.p12" ]; then
    echo "setup: making certificates"
    rm -rf "$dir/tls" "$dir/tls.new"
    mkdir "$dir/tls.new"
    (
        cd "$dir/tls.new"
        kt() {
            keytool -J-XX:TieredStopAtLevel=1 "$@" -storetype PKCS12 -storepass strait-test 2>keytool.log ||
                { cat keytool.log >&2; exit 1; }
        }
        kt -genkeypair -keystore ca.p12 -alias ca -dname "CN=Strait test CA" -ext bc:c -ext ku:c=keyCertSign \
            -keyalg EC -groupname secp256r1 -validity 3650
        kt -exportcert -keystore ca.p12 -alias ca -rfc -file ca.pem
        kt -genkeypair -keystore server.p12 -alias server -dname CN=localhost \
            -keyalg EC -groupname secp256r1 -validity 3650
        kt -certreq -keystore server.p12 -alias server -file server.csr
        kt -gencert -keystore ca.p12 -alias ca -rfc -validity 3650 -ext SAN=dns:localhost,ip:127.0.0.1 \
            -ext eku=serverAuth -infile server.csr -outfile server.pem
        kt -importcert -keystore server.p12 -noprompt -alias ca -file ca.pem
        kt -importcert -keystore server.p12 -noprompt -alias server -file server.pem
        rm -f keytool.log server.csr
    )
    mv "$dir/tls.new" "$dir/tls"
fi

# A class archive fits one JVM build and one class path; without it everything works, only slower.
for version in "${versions[@]}"; do
    archive="$dir/$version/classes.jsa"
    build="$(java -version 2>&1 | tail -n 1) $(cksum <"$dir/strait-harness.jar")"
    [ -f "$dir/$version/classpath" ] && [ "$(cat "$archive.of" 2>/dev/null)" = "$build" ] && continue
    echo "setup: warming up Kafka $version"
    work="$(mktemp -d)"
    rm -f "$archive" "$dir/$version/classpath"
    # The archive holds for exactly this order, so it is written down for the harness.
    (cd "$dir" && printf '%s\n' strait-harness.jar "$version"/libs/*.jar >"$version/classpath.new")
    classpath="$(sed "s|^|$dir/|" "$dir/$version/classpath.new" | paste -sd :)"
    if ! java -XX:ArchiveClassesAtExit="$archive" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx512m \
        -cp "$classpath" Warmup "$work" >"$dir/$version/warmup.log" 2>&1 </dev/null; then
        echo "setup: Kafka $version did not run; the end of $dir/$version/warmup.log:" >&2
        tail -n 30 "$dir/$version/warmup.log" >&2
        rm -rf "$work"
        exit 1
    fi
    rm -rf "$work"
    mv "$dir/$version/classpath.new" "$dir/$version/classpath"
    echo "$build" >"$archive.of"
done
echo "setup: ready in $dir"
