#!/usr/bin/env bash
# Sets a Debian machine up for l7proxy: apt packages, kernel headers for bcc, and .venv with the command l7proxy (and
# the programs in Go that tests and bench take).
#
#   scripts/install.sh [compile] [test] [lint] [bench] [kafka] [cassandra]
#
# Without words: what running takes. Each word adds what that work needs (compile: the workers' code is compiled, as for
# test and bench; kafka, cassandra: their demos). Everything that is there already is left alone, and a second run with
# nothing changed ends at once.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

kernel=$(uname -r)
architecture=$(dpkg --print-architecture 2>/dev/null || true)
guard=/usr/sbin/policy-rc.d

say() { printf 'install: %s\n' "$*"; }
fail() {
    printf 'install: error: %s\n' "$*" >&2
    exit 1
}

packages_for() {
    case $1 in
        run) echo python3 python3-venv python3-bpfcc iproute2 curl ca-certificates ;;
        test)
            echo bpftool iputils-ping netbase procps nginx-light apache2-bin lighttpd wrk haproxy git make
            echo nghttp2-client nghttp2-server "$(go_package)" default-jdk-headless maven kcat nodejs iptables spin
            ;;
        compile) echo gcc libc6-dev python3-dev ;;
        lint) echo clang-format ;;
        bench)
            echo netbase wrk haproxy nginx-light procps nghttp2-client "$(go_package)" iptables
            echo default-jdk-headless maven
            ;;
        kafka) echo default-jre-headless maven kcat ;;
        cassandra) echo default-jre-headless maven ;;
        *) fail "'$1' is none of: compile, test, lint, bench, kafka, cassandra" ;;
    esac
}

go_package() { command -v go >/dev/null || echo golang-go; }

# Command, folder of the Go module that pins it, package.
programs_for() {
    case $1 in
        test)
            echo h2spec tests/h2spec github.com/summerwind/h2spec/cmd/h2spec
            echo grpc-client tests/grpc/go .
            ;;
        bench)
            echo ghz bench/grpc github.com/bojand/ghz/cmd/ghz
            echo grpc-echo bench/grpc .
            ;;
    esac
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# The services of packages we bring are neither started now (policy-rc.d, for the time of the installation) nor at
# the next start of the machine: tests run these programs themselves, with configurations of their own.
apt_install() {
    local wanted=() package
    for package in "$@"; do
        installed "$package" || wanted+=("$package")
    done
    [ ${#wanted[@]} -eq 0 ] && return 0
    say "apt packages: ${wanted[*]}"
    if [ -e $guard ]; then
        fetch_packages "${wanted[@]}"
    else
        trap 'rm -f $guard' EXIT
        printf '#!/bin/sh\nexit 101\n' >$guard
        chmod 755 $guard
        fetch_packages "${wanted[@]}"
        rm -f $guard
        trap - EXIT
    fi
    for package in "${wanted[@]}"; do
        disable_service "$package"
    done
}

fetch_packages() {
    apt_get update
    apt_get install -y --no-install-recommends "$@"
}

apt_get() {
    local output
    output=$(apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" 2>&1 </dev/null) && return 0
    printf '%s\n' "$output" | tail -n 15 >&2
    fail "apt-get $1 failed (see above)"
}

disable_service() {
    case $1 in nginx-light) set -- nginx ;; haproxy | lighttpd) ;; *) return 0 ;; esac
    command -v systemctl >/dev/null && systemctl --quiet disable "$1" >/dev/null 2>&1 || true
    update-rc.d "$1" disable >/dev/null 2>&1 || true
}

headers_there() { [ -e "/lib/modules/$kernel/build/include/linux/kconfig.h" ] || [ -e "$(headers_source)" ]; }
headers_source() { echo "/lib/modules/$kernel/source/include/linux/kconfig.h"; }

# bcc compiles against kernel headers. Where Debian has none for the running kernel, those of its own kernel serve:
# only types of the stable user-space interface are used, and offsets come from the kernel's BTF.
kernel_headers() {
    headers_there && return 0
    if apt-cache show "linux-headers-$kernel" >/dev/null 2>&1; then
        apt_install "linux-headers-$kernel"
        headers_there && return 0
    fi
    apt_install "linux-headers-$architecture"
    local tree common
    tree=$(find /usr/src -maxdepth 1 -name "linux-headers-*-$architecture" | sort -V | tail -n 1)
    [ -n "$tree" ] || fail "linux-headers-$architecture has brought no tree under /usr/src"
    common="${tree%-"$architecture"}-common"
    [ -d "$common" ] || fail "$common is missing beside $tree"
    mkdir -p "/lib/modules/$kernel"
    ln -sfn "$tree" "/lib/modules/$kernel/build"
    ln -sfn "$common" "/lib/modules/$kernel/source"
    say "kernel headers: /lib/modules/$kernel/{build,source} -> $(basename "$tree"), $(basename "$common")"
    headers_there || fail "bcc will not find kernel headers for $kernel"
}

# System site packages, so that Debian's bcc is seen; Debian's own Python, for which that bcc is built.
virtual_environment() {
    if ! .venv/bin/python -c 'import bcc, pip' 2>/dev/null; then
        say ".venv: from $(/usr/bin/python3 --version), sees the system's packages (bcc)"
        /usr/bin/python3 -m venv --clear --system-site-packages .venv
    fi
    .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed"
    .venv/bin/python -c 'import bcc' || fail "Debian's bcc (python3-bpfcc) cannot be imported by .venv/bin/python"
    local extras
    extras=$(IFS=, && echo "${words[*]}")
    say ".venv: l7proxy${extras:+ with $extras}"
    .venv/bin/pip install -q -e ".${extras:+[$extras]}" </dev/null || fail "pip could not install l7proxy (see above)"
}

go_programs() {
    local word name folder package target
    for word in "${words[@]}"; do
        programs_for "$word" | while read -r name folder package; do
            target="$PWD/.venv/bin/$name"
            say ".venv: $name"
            (cd "$folder" && GOTOOLCHAIN=local GOFLAGS=-buildvcs=false go build -o "$target" "$package" </dev/null) ||
                fail "go could not build $name (see above)"
        done
    done
}

# grpc-java, for the tests of gRPC: the libraries that their pom.xml names, and the tests' own programs.
java_programs() {
    local folder=$PWD/.venv/java
    say ".venv/java: grpc-java"
    mvn -q -B -Dstyle.color=never -f tests/grpc/java/pom.xml dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$folder" </dev/null || fail "Maven could not bring grpc-java (see above)"
    javac -nowarn -cp "$folder/*" -d "$folder/classes" tests/grpc/java/*.java || fail "javac failed (see above)"
}

# A real broker, for tests, bench and demo of Kafka: the libraries that its pom.xml names.
kafka_broker() {
    local pom=tests/kafka/java/pom.xml
    cmp -s $pom build/kafka/lib/pom.xml && return 0
    say "build/kafka/lib: Kafka's broker"
    rm -rf build/kafka
    mvn -q -B -Dstyle.color=never -f $pom dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$PWD/build/kafka/lib" </dev/null || fail "Maven could not bring Kafka (see above)"
    cp $pom build/kafka/lib/pom.xml
}

# A real server, for tests, bench and demo of Cassandra: the libraries that its pom.xml names.
cassandra_server() {
    local pom=tests/cassandra/java/pom.xml
    cmp -s $pom build/cassandra/lib/pom.xml && return 0
    say "build/cassandra/lib: Cassandra's server"
    rm -rf build/cassandra
    mvn -q -B -Dstyle.color=never -f $pom dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$PWD/build/cassandra/lib" </dev/null || fail "Maven could not bring Cassandra (see above)"
    cp $pom build/cassandra/lib/pom.xml
}

# A few hundred milliseconds if it was done for these sources.
compile_workers() {
    .venv/bin/python scripts/compile.py || fail "the workers' code could not be compiled (see above)"
}

check_bpf() {
    .venv/bin/python - <<'PY' || fail "this kernel ($kernel) does not let us compile and load a BPF program (see above)"
from bcc import BPF
program = BPF(text="int probe(struct __sk_buff *packet) { return 0; }")
program.load_func("probe", BPF.SCHED_CLS)
PY
}

stamp() {
    cat scripts/install.sh pyproject.toml {tests/h2spec,bench/grpc}/go.* bench/grpc/*.go tests/grpc/{go,java}/* \
        tests/{kafka,cassandra}/java/pom.xml \
        <(echo "$kernel" "$PWD" "${words[@]}") | sha256sum | cut -c 1-64
}

words=("$@")
asked_for() { case " ${words[*]} " in *" $1 "*) ;; *) false ;; esac; }
if (asked_for test || asked_for bench) && ! asked_for compile; then words+=(compile); fi
packages=$(packages_for run)
for word in "${words[@]}"; do
    packages+=" $(packages_for "$word")"
done
now=$(stamp)
with_broker() { asked_for test || asked_for bench || asked_for kafka; }
with_cassandra() { asked_for test || asked_for bench || asked_for cassandra; }
built() {
    { ! with_broker || [ -e build/kafka/lib/pom.xml ]; } && { ! with_cassandra || [ -e build/cassandra/lib/pom.xml ]; }
}
if grep -qsx "$now" .venv/.installed && built && .venv/bin/python -c 'import bcc, l7proxy' 2>/dev/null; then
    if asked_for compile; then compile_workers; fi
    say "all is there (${words[*]:-run})"
    exit 0
fi
[ "$(id -u)" -eq 0 ] || fail "must run as root: it installs apt packages, and l7proxy loads BPF programs"
command -v apt-get >/dev/null || fail "needs Debian's apt-get"
read -ra list <<<"${packages//$'\n'/ }"
apt_install "${list[@]}"
kernel_headers
virtual_environment
go_programs
if asked_for test; then java_programs; fi
if with_broker; then kafka_broker; fi
if with_cassandra; then cassandra_server; fi
check_bpf
if asked_for compile; then compile_workers; fi
echo "$now" >>.venv/.installed
say "done: $PWD/.venv/bin/l7proxy"
