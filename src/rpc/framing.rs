//! Cuts a byte stream into JSON texts. Peers write them back to back with no separator, and µTP coalesces and splits
//! them at will, so a text's end can only be found in the text itself.

use bytes::{Buf, Bytes, BytesMut};

/// The largest text, in bytes, where nothing else is configured: 16 MiB. A larger one ends the connection.
pub const MAX_TEXT: usize = 16 << 20;

/// How deep arrays and objects may nest, the outermost counted: what `serde_json` takes. A deeper text ends the
/// connection.
pub const MAX_DEPTH: usize = 127;

/// How much of a refused text is kept for finding its request's id, in bytes.
const HEAD: usize = 512;

/// The largest text, in bytes, whose memory is kept for those that follow.
const KEPT: usize = 256 << 10;

/// An incremental splitter of JSON texts (RFC 8259), whatever the packet boundaries.
///
/// It looks at each byte once. It finds where texts end and leaves it to the parser to say whether they are JSON:
/// `[}` is a text of two bytes. Between texts, white space is skipped.
///
/// ```
/// use grenache::rpc::framing::{MAX_TEXT, Splitter};
///
/// let mut splitter = Splitter::new(MAX_TEXT);
/// splitter.push(br#"["a","key","one"]["b","ke"#);
/// assert_eq!(splitter.next_text().unwrap().unwrap(), r#"["a","key","one"]"#);
/// assert!(splitter.next_text().is_none());
/// splitter.push(br#"y",{"two":"]"}]"#);
/// assert_eq!(splitter.next_text().unwrap().unwrap(), r#"["b","key",{"two":"]"}]"#);
/// ```
#[derive(Debug)]
pub struct Splitter {
    /// What was received and not given out; outside garbage it begins with the current text.
    buffer: BytesMut,
    /// How much of `buffer` has been looked at.
    scanned: usize,
    state: State,
    max_text: usize,
}

/// Where in the stream the splitter is.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Before a text.
    Between,
    /// In a number, a literal or something that could be one.
    Word,
    /// In an array, object or string; `depth` 0 is a string by itself.
    Nested { depth: usize, string: StringState },
    /// Skipping what is no JSON, up to the next `[`.
    Garbage,
    /// After an error that nothing can follow.
    Broken,
}

/// Whether a string is open.
#[derive(Debug, Clone, Copy)]
enum StringState {
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

/// What a stream holds instead of a JSON text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// A byte that no text begins with. Everything up to the next `[` is skipped.
    #[error("byte {0:#04x} begins no JSON text")]
    Garbage(u8),
    /// A raw control character in a string (RFC 8259, 7). Everything up to the next `[` is skipped.
    #[error("control character {byte:#04x} in a string")]
    ControlCharacter {
        /// The character.
        byte: u8,
        /// The text's beginning.
        head: Bytes,
    },
    /// A text over the size limit. Nothing more is read.
    #[error("text is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
        /// The text's beginning.
        head: Bytes,
    },
    /// A text nested deeper than [`MAX_DEPTH`]. Nothing more is read.
    #[error("text is nested deeper than {MAX_DEPTH}")]
    TooDeep {
        /// The text's beginning.
        head: Bytes,
    },
    /// A text that takes too long to arrive. Nothing more is read.
    #[error("text is not complete after {seconds} s")]
    TooSlow {
        /// How long it was waited for.
        seconds: u64,
        /// The text's beginning.
        head: Bytes,
    },
    /// A text that needs more room than the unfinished texts of all connections have left. Nothing more is read.
    #[error("no room for an unfinished text of {held} bytes")]
    NoRoom {
        /// How much of it was there.
        held: usize,
        /// The text's beginning.
        head: Bytes,
    },
    /// The stream ended inside a text.
    #[error("the stream ended inside a text")]
    Truncated {
        /// The text's beginning.
        head: Bytes,
    },
}

impl FramingError {
    /// Whether the splitter gives nothing more: the connection should end.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::TooDeep { .. } | Self::TooSlow { .. } | Self::NoRoom { .. })
    }

    /// The refused text's beginning, where there is one.
    pub fn head(&self) -> &[u8] {
        match self {
            Self::Garbage(_) => &[],
            Self::ControlCharacter { head, .. }
            | Self::TooLarge { head, .. }
            | Self::TooDeep { head }
            | Self::TooSlow { head, .. }
            | Self::NoRoom { head, .. }
            | Self::Truncated { head } => head,
        }
    }
}

impl Splitter {
    /// A splitter at the beginning of a stream, whose texts may have `max_text` bytes.
    pub fn new(max_text: usize) -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, state: State::Between, max_text }
    }

    /// Takes what was received. Call [`next_text`](Self::next_text) until it gives nothing before the next push:
    /// the splitter holds at most one unfinished text and what was pushed last.
    pub fn push(&mut self, received: &[u8]) {
        self.buffer.extend_from_slice(received);
    }

    /// The next complete text, or what was found instead; `None` where more bytes are needed.
    ///
    /// A number or literal outside of arrays and objects is complete only with the byte that follows it.
    pub fn next_text(&mut self) -> Option<Result<Bytes, FramingError>> {
        loop {
            match self.state {
                State::Between => {
                    let space = self.buffer.iter().take_while(|b| b" \t\r\n".contains(b)).count();
                    self.buffer.advance(space);
                    let first = *self.buffer.first()?;
                    self.scanned = 1;
                    self.state = match first {
                        b'[' | b'{' => State::Nested { depth: 1, string: StringState::Outside },
                        b'"' => State::Nested { depth: 0, string: StringState::Inside },
                        _ if is_word(first) => State::Word,
                        _ => {
                            self.skip_garbage(0);
                            return Some(Err(FramingError::Garbage(first)));
                        }
                    };
                }
                State::Word => {
                    let window = self.window();
                    match window.iter().position(|&b| !is_word(b)) {
                        Some(more) => return Some(Ok(self.take(self.scanned + more))),
                        None => self.scanned += window.len(),
                    }
                    return self.too_large().map(Err);
                }
                State::Nested { depth, string } => match scan(self.window(), depth, string) {
                    Scan::End(more) => {
                        self.scanned += more;
                        return Some(self.too_large().map_or_else(|| Ok(self.take(self.scanned)), Err));
                    }
                    Scan::More { depth, string } => {
                        self.scanned += self.window().len();
                        self.state = State::Nested { depth, string };
                        return self.too_large().map(Err);
                    }
                    Scan::TooDeep { at } => {
                        self.scanned += at;
                        return Some(Err(FramingError::TooDeep { head: self.give_up() }));
                    }
                    Scan::ControlCharacter { at, byte } => {
                        let head = self.head(self.scanned + at);
                        self.skip_garbage(self.scanned + at);
                        return Some(Err(FramingError::ControlCharacter { byte, head }));
                    }
                },
                State::Garbage => match self.buffer.iter().position(|&b| b == b'[') {
                    Some(start) => {
                        self.buffer.advance(start);
                        self.state = State::Between;
                    }
                    None => {
                        self.buffer.clear();
                        return None;
                    }
                },
                State::Broken => {
                    self.buffer.clear();
                    return None;
                }
            }
        }
    }

    /// How many bytes of an unfinished text are held.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Gives up on an unfinished text, and on all that may follow; gives its beginning.
    pub(super) fn abandon(&mut self) -> Bytes {
        self.scanned = self.buffer.len();
        self.give_up()
    }

    /// What is left when the stream has ended and [`next_text`](Self::next_text) gives nothing more: a number or
    /// literal, an error where a text was cut off, or nothing.
    pub fn finish(&mut self) -> Option<Result<Bytes, FramingError>> {
        match self.state {
            State::Word => Some(Ok(self.take(self.scanned))),
            State::Nested { .. } => Some(Err(FramingError::Truncated { head: self.give_up() })),
            State::Between | State::Garbage | State::Broken => None,
        }
    }

    /// The bytes to look at next: one more than the limit allows, so that the limit does not depend on how the stream
    /// was cut.
    fn window(&self) -> &[u8] {
        let end = self.buffer.len().min(self.max_text.saturating_add(1)).max(self.scanned);
        &self.buffer[self.scanned..end]
    }

    fn take(&mut self, len: usize) -> Bytes {
        self.scanned = 0;
        self.state = State::Between;
        let text = self.buffer.split_to(len).freeze();
        if len > KEPT {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        text
    }

    fn too_large(&mut self) -> Option<FramingError> {
        (self.scanned > self.max_text).then(|| FramingError::TooLarge { limit: self.max_text, head: self.give_up() })
    }

    fn head(&self, len: usize) -> Bytes {
        Bytes::copy_from_slice(&self.buffer[..len.min(HEAD).min(self.buffer.len())])
    }

    fn give_up(&mut self) -> Bytes {
        let head = self.head(self.scanned);
        self.buffer = BytesMut::new();
        self.scanned = 0;
        self.state = State::Broken;
        head
    }

    fn skip_garbage(&mut self, len: usize) {
        self.buffer.advance(len);
        self.scanned = 0;
        self.state = State::Garbage;
    }
}

/// Whether a byte can be in a number or a literal.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-+.".contains(&byte)
}

/// What looking at some bytes of a text found.
enum Scan {
    /// The text ends after this many of them.
    End(usize),
    /// It goes on.
    More { depth: usize, string: StringState },
    /// One bracket too many.
    TooDeep { at: usize },
    /// No string can hold this byte.
    ControlCharacter { at: usize, byte: u8 },
}

fn scan(bytes: &[u8], mut depth: usize, mut string: StringState) -> Scan {
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match string {
            StringState::Outside => match byte {
                b'"' => string = StringState::Inside,
                b'[' | b'{' if depth == MAX_DEPTH => return Scan::TooDeep { at },
                b'[' | b'{' => depth += 1,
                b']' | b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Scan::End(at + 1);
                    }
                }
                _ => {}
            },
            StringState::Inside => match byte {
                b'"' if depth == 0 => return Scan::End(at + 1),
                b'"' => string = StringState::Outside,
                b'\\' => string = StringState::Escaped,
                0..0x20 => return Scan::ControlCharacter { at, byte },
                _ => at += plain(&bytes[at + 1..]),
            },
            StringState::Escaped if byte < 0x20 => return Scan::ControlCharacter { at, byte },
            StringState::Escaped => string = StringState::Inside,
        }
        at += 1;
    }
    Scan::More { depth, string }
}

/// How many bytes, in whole blocks, say nothing about where a string ends. Blocks without branches are what the
/// compiler makes vector instructions of.
fn plain(bytes: &[u8]) -> usize {
    let special = |&b: &u8| (b == b'"') | (b == b'\\') | (b < 0x20);
    let (blocks, _) = bytes.as_chunks::<32>();
    blocks.iter().take_while(|block| !block.iter().fold(false, |any, b| any | special(b))).count() * 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Pushes `stream` in pieces of the given sizes (the last repeats) and gives all that comes out.
    fn split(stream: &[u8], sizes: &[usize], max_text: usize) -> Vec<Result<Bytes, FramingError>> {
        let mut splitter = Splitter::new(max_text);
        let mut out = Vec::new();
        let mut rest = stream;
        let mut sizes = sizes.iter().copied();
        let mut size = stream.len().max(1);
        while !rest.is_empty() {
            size = sizes.next().unwrap_or(size).clamp(1, rest.len().max(1));
            let (piece, tail) = rest.split_at(size.min(rest.len()));
            splitter.push(piece);
            out.extend(std::iter::from_fn(|| splitter.next_text()));
            rest = tail;
        }
        out.extend(splitter.finish());
        out
    }

    fn texts(stream: &str) -> Vec<Result<String, FramingError>> {
        let found = split(stream.as_bytes(), &[], MAX_TEXT);
        assert_eq!(found, split(stream.as_bytes(), &[1], MAX_TEXT), "byte by byte");
        found.into_iter().map(|text| text.map(|t| String::from_utf8_lossy(&t).into_owned())).collect()
    }

    fn ok(texts: &[&str]) -> Vec<Result<String, FramingError>> {
        texts.iter().map(|t| Ok((*t).to_owned())).collect()
    }

    #[test]
    fn texts_back_to_back() {
        assert_eq!(texts(r#"[1][2,[3]]{"a":{}}"x"[]"#), ok(&["[1]", "[2,[3]]", r#"{"a":{}}"#, r#""x""#, "[]"]));
        assert_eq!(texts("0 true\r\nnull[1]12"), ok(&["0", "true", "null", "[1]", "12"]));
        assert_eq!(texts(""), []);
        assert_eq!(texts(" \n\t\r"), []);
    }

    #[test]
    fn brackets_quotes_and_escapes_in_strings_do_not_count() {
        let text = r#"["]}[{", "\"]", "\\", "a\u0022", "ÿ€🚀"]"#;
        assert_eq!(texts(&format!("{text}{text}")), ok(&[text, text]));
    }

    #[test]
    fn garbage_is_skipped_up_to_the_next_array() {
        assert_eq!(
            texts("]}{\"not\":1}é[1]"),
            [vec![Err(FramingError::Garbage(b']'))], ok(&["[1]"])].concat(),
            "one error for one run of garbage",
        );
        let control = FramingError::ControlCharacter { byte: b'\n', head: Bytes::from_static(b"[\"rid\",\"k") };
        assert_eq!(texts("[\"rid\",\"k\ney\",1][2]"), [vec![Err(control)], ok(&["[2]"])].concat());
    }

    #[test]
    fn a_text_may_have_the_limit_and_no_byte_more() {
        for (stream, good) in [("[234]", true), ("[2345]", false), ("12345 ", true), ("123456 ", false)] {
            for size in [1, 2, 100] {
                let found = split(stream.as_bytes(), &[size], 5);
                assert_eq!(found[0].is_ok(), good, "{stream}");
                if !good {
                    let head = found[0].as_ref().unwrap_err();
                    assert!(head.is_fatal() && stream.as_bytes().starts_with(head.head()), "{head:?}");
                    assert_eq!(found.len(), 1, "nothing follows");
                }
            }
        }
    }

    #[test]
    fn a_text_may_nest_to_the_limit_and_no_deeper() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let deepest = nested(MAX_DEPTH);
        assert_eq!(texts(&deepest), ok(&[&deepest]));
        assert!(serde_json::from_str::<Value>(&deepest).is_ok(), "the parser takes what the splitter takes");
        let found = texts(&nested(MAX_DEPTH + 1));
        assert!(matches!(found[..], [Err(FramingError::TooDeep { .. })]), "{found:?}");
    }

    #[test]
    fn a_cut_off_text_is_an_error() {
        for stream in ["[", "[1,", "\"abc", "{\"a\":\"\\"] {
            let found = texts(stream);
            assert!(
                matches!(&found[..], [Err(FramingError::Truncated { head })] if head == stream.as_bytes()),
                "{found:?}"
            );
        }
    }

    #[test]
    fn every_byte_is_looked_at_once() {
        // Byte by byte: looking at each prefix again would take hours.
        let mut splitter = Splitter::new(MAX_TEXT);
        let text = format!("[\"{}\"]", "x[\\\"".repeat(1 << 19));
        for byte in text.as_bytes() {
            assert!(splitter.next_text().is_none());
            splitter.push(std::slice::from_ref(byte));
        }
        assert_eq!(splitter.next_text().unwrap().unwrap().len(), text.len());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,80}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_texts_in_any_pieces(
            values in prop::collection::vec((json(), any::<bool>()), 0..8),
            sizes in prop::collection::vec(1_usize..40, 0..60),
        ) {
            let mut stream = String::new();
            for (value, pretty) in &values {
                stream += &if *pretty { format!("{value:#}") } else { value.to_string() };
                if !(value.is_array() || value.is_object() || value.is_string()) {
                    stream.push(' ');
                }
            }
            let found: Vec<Value> = split(stream.as_bytes(), &sizes, MAX_TEXT)
                .into_iter()
                .map(|text| serde_json::from_slice(&text.unwrap()).unwrap())
                .collect();
            // Through text and back: not every float survives printing and parsing bit for bit.
            let expected: Vec<Value> =
                values.iter().map(|(value, _)| serde_json::from_str(&value.to_string()).unwrap()).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            stream in prop::collection::vec(prop_oneof![
                3 => any::<u8>(),
                2 => prop::sample::select(br#"[]{}",\ 0tx"#.to_vec()),
            ], 0..600),
            sizes in prop::collection::vec(1_usize..40, 0..60),
            max_text in 1_usize..200,
        ) {
            let whole = split(&stream, &[], max_text);
            prop_assert_eq!(&whole, &split(&stream, &[1], max_text));
            prop_assert_eq!(&whole, &split(&stream, &sizes, max_text));
            prop_assert!(whole.iter().flatten().all(|text| text.len() <= max_text));
        }
    }
}
