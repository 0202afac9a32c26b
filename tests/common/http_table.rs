//! What a Grape answers over HTTP: one table, for ours and for the original, so that the two cannot drift apart.
//!
//! A row that the two answer differently says what each answers, and why ours does not follow.

use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use super::PATIENCE;

/// The value that [`with_another`] expects at the other Grape and nowhere else.
pub(crate) const FROM_ELSEWHERE: &str = "from elsewhere";

/// What [`super::refusing_node`] answers a put of this value with.
pub(crate) const STALE: &str = "302 sequence number less than current";
/// As [`STALE`].
pub(crate) const MISMATCH: &str = "301 CAS mismatch, re-read and try again";

/// Why the original is asked only once for something that it reads as the empty key, "not hex" as a hash.
const EMPTY_KEY: &str = "its list of tables breaks on the empty key: the second operation on it can end the process";

/// Whose Grape it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Ours,
    Theirs,
}

/// A request, and what is answered to it.
pub(crate) struct Row {
    method: &'static str,
    path: &'static str,
    body: Vec<u8>,
    want: Want,
    original: Original,
}

/// What is wanted of an answer.
#[derive(Debug, Clone)]
enum Want {
    /// This status and this body.
    Body(u16, String),
    /// This status, and a text for people.
    Text(u16),
    /// A stored value: from the Grape's own store without a token, else with one.
    Value { remote: bool, v: Json },
}

/// What the original answers.
enum Original {
    Same,
    Differs(Want),
    NotAsked,
}

impl Row {
    fn raw(path: &'static str, body: impl Into<Vec<u8>>, want: Want) -> Self {
        Self { method: "POST", path, body: body.into(), want, original: Original::Same }
    }

    fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// The original answers this instead; ours does not, for that reason.
    fn original(mut self, want: Want, _reason: &'static str) -> Self {
        self.original = Original::Differs(want);
        self
    }

    /// The original is not asked, for that reason.
    fn ours_only(mut self, _reason: &'static str) -> Self {
        self.original = Original::NotAsked;
        self
    }
}

fn row(path: &'static str, data: Json, want: Want) -> Row {
    Row::raw(path, json!({ "data": data }).to_string(), want)
}

fn answers(json: Json) -> Want {
    Want::Body(200, json.to_string())
}

/// An error as clients know it: status 200 and a JSON string.
fn says(message: &str) -> Want {
    answers(json!(message))
}

fn nothing() -> Want {
    Want::Body(200, String::new())
}

fn bare(status: u16, text: &str) -> Want {
    Want::Body(status, text.to_owned())
}

fn local(v: Json) -> Want {
    Want::Value { remote: false, v }
}

/// A Grape that knows no other.
pub(crate) fn alone() -> Vec<Row> {
    [routes(), bodies(), lone_lookups(), lone_announces(), lone_puts(), lone_mutable_puts(), lone_gets()]
        .into_iter()
        .flatten()
        .collect()
}

fn routes() -> Vec<Row> {
    let lookup = || row("/lookup", json!("nobody"), answers(json!([])));
    let unknown = |path| row(path, json!("nobody"), says("ERR_REQ_NOTFOUND"));
    let mut rows: Vec<_> = ["POST", "GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"]
        .into_iter()
        .map(|method| lookup().method(method))
        .collect();
    rows.extend([
        lookup().method("BREW").original(bare(400, ""), "Node.js has a list of methods, hyper takes any"),
        row("/lookup", json!("nobody"), nothing()).method("HEAD"),
        unknown("/"),
        unknown("/nowhere"),
        unknown("/lookup/"),
        unknown("/lookup?name=x"),
        unknown("/peer"),
        unknown("/Lookup").original(answers(json!([])), "it turns routes into names of methods, so that several work"),
    ]);
    rows
}

fn bodies() -> Vec<Row> {
    let invalid = |path, body: &str| Row::raw(path, body, bare(500, "ERR_GRAPE_PAYLOAD_INVALID"));
    let padded = |len: usize| format!("{:len$}", r#"{"data":"nobody"}"#);
    vec![
        Row::raw("/lookup", r#"{"rid":"x","data":"nobody","more":1}"#, answers(json!([]))),
        invalid("/lookup", ""),
        invalid("/lookup", "{"),
        invalid("/lookup", "\u{feff}{}"),
        invalid("/lookup", &"[".repeat(8000)),
        invalid("/nowhere", "{} x"),
        Row::raw("/lookup", b"{\"data\":\"\xff\"}", bare(500, "ERR_GRAPE_PAYLOAD_INVALID"))
            .original(answers(json!([])), "it replaces what is not UTF-8, and so looks up another name"),
        Row::raw("/lookup", "null", Want::Text(500)),
        Row::raw("/nowhere", "null", Want::Text(500)),
        Row::raw("/lookup", padded(8192), answers(json!([]))),
        Row::raw("/lookup", padded(8193), bare(413, "ERR_GRAPE_PAYLOAD_SIZE")),
        Row::raw("/nowhere", padded(8193), bare(413, "ERR_GRAPE_PAYLOAD_SIZE")),
    ]
}

fn lone_lookups() -> Vec<Row> {
    let refused = |data| row("/lookup", data, says("ERR_GRAPE_LOOKUP"));
    let whole = |body: &str| Row::raw("/lookup", body, says("ERR_GRAPE_LOOKUP"));
    vec![
        row("/lookup", json!("café"), answers(json!([]))),
        row("/lookup", json!("n".repeat(1024)), answers(json!([]))),
        refused(json!("n".repeat(1025))).original(answers(json!([])), "ours has a limit for names"),
        refused(json!("")),
        refused(json!(5)),
        refused(json!(true)),
        refused(json!(null)),
        refused(json!(["x"])),
        refused(json!({"x": 1})),
        whole("{}"),
        whole("[]"),
        whole("5"),
        whole(r#""x""#),
    ]
}

fn lone_announces() -> Vec<Row> {
    const NAME: &str = "only a text is a name";
    let announce = |data, answer: &str| row("/announce", data, says(answer));
    let port = |port: Json| announce(json!(["x", port]), "ERR_GRAPE_SERVICE_PORT");
    let unheard = || says("No nodes to query");
    let out_of_range = "there is no such port, so that no node could take it";
    vec![
        announce(json!(["rpc_test", 1337]), "No nodes to query"),
        announce(json!(["rpc_test", 1337, "more"]), "No nodes to query"),
        announce(json!(["rpc_test", 0]), "No nodes to query"),
        announce(json!(["rpc_test", 65535]), "No nodes to query"),
        Row::raw("/announce", r#"{"data":["rpc_test",1337.0]}"#, unheard()),
        announce(json!("rpc_test"), "ERR_GRAPE_ANNOUNCE"),
        announce(json!({"name": "rpc_test", "port": 1337}), "ERR_GRAPE_ANNOUNCE"),
        announce(json!(5), "ERR_GRAPE_ANNOUNCE"),
        announce(json!(null), "ERR_GRAPE_ANNOUNCE"),
        Row::raw("/announce", "{}", says("ERR_GRAPE_ANNOUNCE")),
        announce(json!([]), "ERR_GRAPE_SERVICE_PORT"),
        announce(json!(["rpc_test"]), "ERR_GRAPE_SERVICE_PORT"),
        announce(json!([5, "1337"]), "ERR_GRAPE_SERVICE_PORT"),
        port(json!("1337")),
        port(json!(1337.5)),
        port(json!(null)),
        port(json!(65536)).original(unheard(), out_of_range),
        port(json!(-1)).original(unheard(), out_of_range),
        announce(json!([5, 1337]), "ERR_GRAPE_ANNOUNCE").original(Want::Text(500), NAME),
        announce(json!([null, 1337]), "ERR_GRAPE_ANNOUNCE").original(Want::Text(500), NAME),
        announce(json!(["", 1337]), "ERR_GRAPE_ANNOUNCE").ours_only(EMPTY_KEY),
        announce(json!([["x"], 1337]), "ERR_GRAPE_ANNOUNCE").original(unheard(), NAME),
        announce(json!(["n".repeat(1025), 1337]), "ERR_GRAPE_ANNOUNCE")
            .original(unheard(), "ours has a limit for names"),
    ]
}

fn lone_puts() -> Vec<Row> {
    let put = |v, answer: &str| row("/put", json!({ "v": v }), says(answer));
    let taken = |v| put(v, "No nodes to query");
    let too_long = |v| put(v, "v must be less than 1000 bytes in put()");
    let without = |data| row("/put", data, says("opts.v not given"));
    vec![
        taken(json!("hello")),
        // What could be put nowhere else is still here.
        row("/get", json!("e28910ea0adb94dd45ced75fbff3e135c01bc437"), local(json!("hello"))),
        row("/put", json!("a plain string"), says("No nodes to query")),
        row("/put", json!({"v": "more", "seq": 3, "sig": "00", "token": "x"}), says("No nodes to query")),
        row("/put", json!({"v": "no key", "k": null}), says("No nodes to query")),
        taken(json!("")),
        taken(json!(42)),
        taken(json!([1, "two", {"three": 3}])),
        taken(json!("v".repeat(999))),
        too_long(json!("v".repeat(1000))),
        too_long(json!("é".repeat(500)))
            .original(says("No nodes to query"), "it counts UTF-16 units first; ours counts bytes always"),
        too_long(json!(["v".repeat(1000)]))
            .original(says("No nodes to query"), "it counts the items of a list, ours the encoded bytes"),
        put(json!(1.5), "v may hold whole numbers of 64 bits only")
            .original(says("No nodes to query"), "bencode has whole numbers only: it stores another value"),
        without(json!({})),
        without(json!([])),
        without(json!(7)),
        without(json!(true)),
        without(json!({ "v": null }))
            .original(says("Cannot read properties of null (reading 'length')"), "its text is an accident"),
        row("/put", json!(null), Want::Text(500)),
        Row::raw("/put", "{}", Want::Text(500)),
    ]
}

/// What is checked before a mutable value's signature is.
fn lone_mutable_puts() -> Vec<Row> {
    let key = "8a".repeat(32);
    let put = |more: Json, answer: &str| {
        let mut data = json!({"v": "x", "k": key});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row("/put", data, says(answer))
    };
    let sig = "cc".repeat(64);
    vec![
        row("/put", json!({"v": "x", "k": "00"}), says("opts.k ed25519 public key must be 32 bytes")),
        put(json!({}), "opts.sig must be a signature of 64 bytes").original(
            says("opts.sign function or options.sig signature is required for mutable put"),
            "there is no sign function over HTTP",
        ),
        put(json!({ "sig": sig }), "opts.seq not provided for a mutable update"),
        put(json!({"sig": sig, "seq": "1"}), "opts.seq not an integer"),
        put(json!({"sig": sig, "seq": 1, "cas": "1"}), "opts.cas must be an integer if provided"),
        put(json!({"sig": sig, "seq": 1, "salt": "s".repeat(65)}), "opts.salt is > 64 bytes long"),
    ]
}

fn lone_gets() -> Vec<Row> {
    let get = |data, want| row("/get", data, want);
    let generic = |data| get(data, says("ERR_GRAPE_GENERIC"));
    vec![
        get(json!("00".repeat(20)), nothing()),
        get(json!({"hash": "00".repeat(20)}), nothing()),
        get(json!("00".repeat(19)), nothing()),
        get(json!("00".repeat(21)), nothing()),
        get(json!("not hex"), nothing()),
        get(json!(""), nothing()).ours_only(EMPTY_KEY),
        get(json!({"hash": ""}), nothing()).ours_only(EMPTY_KEY),
        generic(json!({})),
        generic(json!([])),
        generic(json!(5)),
        generic(json!(true)),
        generic(json!({"hash": 5})),
        get(json!(null), Want::Text(500)),
        Row::raw("/get", "{}", Want::Text(500)),
    ]
}

/// A Grape that knows one other, which had [`FROM_ELSEWHERE`] before they met.
pub(crate) fn with_another(dht_port: u16) -> Vec<Row> {
    let announce = |name: &str, port: u16| row("/announce", json!([name, port]), answers(json!(1)));
    let found = |name: &str, port: u16| row("/lookup", json!(name), answers(json!([format!("127.0.0.1:{port}")])));
    let put = |data, hash: &str| row("/put", data, answers(json!(hash)));
    let get = |hash: &str, v| row("/get", json!(hash), local(v));
    let long = "n".repeat(1024);
    vec![
        announce("rpc_test", 1337),
        announce("rpc_test", 1337),
        found("rpc_test", 1337),
        announce("x", 65535),
        found("x", 65535),
        announce("café", 1),
        found("café", 1),
        announce(&long, 2),
        found(&long, 2),
        // Port 0 is the announcing Grape's own.
        announce("zero", 0),
        found("zero", dht_port),
        row("/announce", json!(["out of range", 65536]), says("ERR_GRAPE_SERVICE_PORT"))
            .original(says("All queries failed"), "it asks all the same, and nobody answers"),
        row("/lookup", json!("out of range"), answers(json!([]))),
        row("/lookup", json!("nobody"), answers(json!([]))),
        put(json!({"v": "hello"}), "e28910ea0adb94dd45ced75fbff3e135c01bc437"),
        put(json!("hello"), "e28910ea0adb94dd45ced75fbff3e135c01bc437"),
        get("e28910ea0adb94dd45ced75fbff3e135c01bc437", json!("hello")),
        get("E28910EA0ADB94DD45CED75FBFF3E135C01BC437", json!("hello")),
        row("/get", json!({"hash": "e28910ea0adb94dd45ced75fbff3e135c01bc437"}), local(json!("hello"))),
        put(json!({"v": "v".repeat(999)}), "f68768a9a1566ea755fd3c188b7f9fdbb9effd44"),
        get("f68768a9a1566ea755fd3c188b7f9fdbb9effd44", json!("v".repeat(999))),
        put(json!({ "v": 42 }), "3ce69356df4222111c27b41cccf2164e6cced799"),
        get("3ce69356df4222111c27b41cccf2164e6cced799", json!("42")),
        put(json!({"v": [1, "two", {"three": 3}]}), "0bbd2b6cf41d55ae20b3e4920a9609025c7cedb7"),
        get("0bbd2b6cf41d55ae20b3e4920a9609025c7cedb7", json!([1, "two", {"three": 3}])).original(
            local(json!("1,two,[object Object]")),
            "it shows lists and dictionaries as JavaScript's strings of them",
        ),
        row("/get", json!("2aaefe5ae957e0fce83dd46b4457f7f7e3f1c5a3"), nothing()),
        row("/get", json!(hash(FROM_ELSEWHERE)), Want::Value { remote: true, v: json!(FROM_ELSEWHERE) }),
    ]
}

/// A Grape whose only other is a [`super::refusing_node`].
pub(crate) fn with_one_that_refuses() -> Vec<Row> {
    let put = |v: &str, want| row("/put", json!({ "v": v }), want);
    vec![
        row("/announce", json!(["x", 1]), says("All queries failed")),
        put("x", says("All queries failed")),
        put(STALE, Want::Body(302, json!(STALE).to_string())),
        put(MISMATCH, Want::Body(301, json!(MISMATCH).to_string())),
    ]
}

/// The hash of a text as BEP 44 has it.
pub(crate) fn hash(text: &str) -> String {
    use sha1::Digest as _;
    hex::encode(sha1::Sha1::digest(format!("{}:{text}", text.len())))
}

/// Has a Grape answer a table, row after row.
pub(crate) async fn check(whose: Whose, api: SocketAddr, rows: &[Row]) {
    let redirect = reqwest::redirect::Policy::none();
    let client = reqwest::Client::builder().no_proxy().redirect(redirect).timeout(PATIENCE).build().unwrap();
    for row in rows {
        let want = match (whose, &row.original) {
            (Whose::Ours, _) | (_, Original::Same) => &row.want,
            (Whose::Theirs, Original::Differs(want)) => want,
            (Whose::Theirs, Original::NotAsked) => continue,
        };
        let method = reqwest::Method::from_bytes(row.method.as_bytes()).unwrap();
        let url = format!("http://{api}{}", row.path);
        let what = format!("{whose:?} {} {} {}", row.method, row.path, String::from_utf8_lossy(&row.body));
        let answer = client.request(method, url).body(row.body.clone()).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        assert_eq!(headers.get("content-type"), None, "{what}");
        let body = answer.text().await.unwrap();
        match want {
            Want::Body(wanted, text) => assert_eq!((status, &body), (*wanted, text), "{what}"),
            Want::Text(wanted) => {
                assert_eq!(status, *wanted, "{what}: {body}");
                assert!(!body.is_empty() && !body.starts_with('"'), "{what}: {body}");
            }
            Want::Value { remote, v } => {
                assert_eq!(status, 200, "{what}: {body}");
                let value: Json = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{what}: {error}: {body}"));
                let hex40 =
                    |json: &Json| json.as_str().is_some_and(|text| text.len() == 40 && hex::decode(text).is_ok());
                assert_eq!(value.as_object().unwrap().len(), 3, "{what}: {body}");
                assert_eq!(&value["v"], v, "{what}");
                assert!(hex40(&value["id"]), "{what}: {body}");
                assert!(if *remote { hex40(&value["token"]) } else { value["token"].is_null() }, "{what}: {body}");
            }
        }
    }
}
