//! What is told of a scenario file whose IPv6 makes no sense.

use grenache_sim::scenario::parse;

/// Each problem as `line:column: message`.
fn problems(text: &str) -> Vec<String> {
    let error = parse("t", text).expect_err("it is refused").to_string();
    error.lines().map(|line| line.trim_start_matches("t:").to_owned()).collect()
}

#[test]
fn networks_that_cannot_be_routed() {
    let told = problems(
        r#"
[nat.home]
lan6 = "2001:db8:1::/56"
[nat.shed]
behind = "home"
lan = "10.0.0.0/24"
lan6 = "2001:db8:2::/64"
[nat.flat]
lan6 = "2001:db8:1:1::/64"
[nat.plain]
[nat.inner]
behind = "plain"
lan = "10.1.0.0/24"
lan6 = "2001:db8:3::/64"
[nat.odd]
lan6 = "fe80::/64"
[nat.long]
lan6 = "2001:db8:4::/80"
[node.a]
[[program]]
node = "a"
run = "grape"
dht-port = 1
api-port = 2
"#,
    );
    assert_eq!(
        told,
        [
            "7:8: 2001:db8:2::/64 is not a part of 2001:db8:1::/56, the `lan6` of `home`, which it is behind",
            "9:8: the network 2001:db8:1:1::/64 of `flat` overlaps 2001:db8:1::/56 of `home`",
            "14:8: `inner` has IPv6, but `plain`, which it is behind, has not",
            "16:8: fe80::/64 cannot be a LAN: it is a part of 2000::/3 with a prefix of /64 or less",
            "18:8: 2001:db8:4::/80 cannot be a LAN: it is a part of 2000::/3 with a prefix of /64 or less",
        ]
    );
}

#[test]
fn addresses_that_no_host_can_have() {
    let file = r#"
[nat.home]
lan6 = "2001:db8:1::/64"
[nat.plain]
[node.a]
address6 = "2001:db8:1::1"
[node.b]
address6 = "::1"
[node.c]
behind = "home"
address6 = "2001:db8:2::1"
[node.d]
behind = "plain"
address6 = "2001:db8:3::1"
[node.e]
address6 = "2001:db8::1"
[node.f]
address6 = "2001:db8::1"
[[program]]
node = "e"
run = "worker"
service = "s"
announce = false
ipv6 = true
"#;
    let mistyped = file.replace("[[program]]", "[node.g]\naddress6 = \"203.0.113.1\"\n[[program]]");
    let told = problems(&mistyped);
    assert_eq!(
        told,
        ["20:12: `203.0.113.1` is not an IPv6 address such as \"2001:db8::1\""],
        "a wrong type is told before all else"
    );
    let told = problems(file);
    assert_eq!(
        told,
        [
            "6:12: 2001:db8:1::1 is in the LAN behind `home`",
            "8:12: ::1 cannot be a host's address here",
            "11:12: 2001:db8:2::1 is not an address in the LAN 2001:db8:1::/64 of `home`",
            "14:12: `plain`, which the node is behind, has no IPv6",
            "18:12: 2001:db8::1 is used twice: by the node `e` and by the node `f`",
        ]
    );
}

#[test]
fn programs_that_have_no_address_of_their_kind() {
    let told = problems(
        r#"
[node.four]
[node.six]
address6 = "2001:db8::6"
[[program]]
node = "six"
run = "grape"
dht-port = 20001
api-port = 30001
[[program]]
node = "four"
run = "worker"
service = "s"
announce = false
ipv6 = true
[[program]]
node = "four"
run = "client"
service = "s"
at = "six:5000"
payload = 1
[[program]]
node = "four"
run = "client"
service = "s"
at = "[2001:db8::6]:5000"
payload = 1
[[program]]
node = "six"
run = "client"
service = "s"
at = "[2001:db8::6]:0"
punch = true
payload = 1
"#,
    );
    assert_eq!(told, ["32:6: `[2001:db8::6]:0` is not an address with a port such as \"[2001:db8::1]:5000\""]);
    let told = problems(
        r#"
[node.four]
[node.six]
address6 = "2001:db8::6"
[[program]]
node = "six"
run = "grape"
dht-port = 20001
api-port = 30001
[[program]]
node = "four"
run = "worker"
service = "s"
announce = false
ipv6 = true
[[program]]
node = "four"
run = "client"
service = "s"
at = "six:5000"
payload = 1
[[program]]
node = "four"
run = "client"
service = "s"
at = "[2001:db8::6]:5000"
payload = 1
"#,
    );
    assert_eq!(
        told,
        [
            "6:8: `six` has no IPv4 address, which this program needs: the DHT is of IPv4",
            "15:8: `four` has no IPv6 address",
            "20:6: `four` and `six` have no kind of address in common",
            "26:6: `four` has no IPv6 address",
        ]
    );
}
