//! Many bytes over a stream, compared by their SHA-256.

use grenache::net::Rng;
use rand::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// How many bytes are read at once.
const READ: usize = 64 << 10;

/// Bytes without a pattern.
pub(crate) fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Their hash, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// How many bytes came, and their hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) len: usize,
    pub(crate) sha256: String,
}

impl Received {
    /// All of these.
    pub(crate) fn all_of(bytes: &[u8]) -> Self {
        Self { len: bytes.len(), sha256: sha256(bytes) }
    }
}

/// Reads to the end.
pub(crate) async fn read_all(mut reader: impl AsyncRead + Unpin) -> Received {
    let mut bytes = vec![0; READ];
    let (mut len, mut hash) = (0, Sha256::new());
    loop {
        match reader.read(&mut bytes).await.unwrap() {
            0 => return Received { len, sha256: hex::encode(hash.finalize()) },
            read => {
                len += read;
                hash.update(&bytes[..read]);
            }
        }
    }
}

/// Writes these and ends the sending side, while it reads to the end.
pub(crate) async fn exchange(stream: impl AsyncRead + AsyncWrite, send: &[u8]) -> Received {
    let (reader, mut writer) = tokio::io::split(stream);
    let write = async {
        writer.write_all(send).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    tokio::join!(write, read_all(reader)).1
}
