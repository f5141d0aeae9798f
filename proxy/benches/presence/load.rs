//! A client that asks encoded questions again and again, and looks at no answer beyond its status.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Connections of a client, and questions that it has open at once.
const CONNECTIONS: usize = 2;
const OPEN: usize = 16;

/// A question of one method, as bytes.
#[derive(Clone)]
pub(crate) struct Question {
    method: &'static str,
    message: Bytes,
}

impl Question {
    pub(crate) fn new(method: &'static str, message: &impl Message) -> Question {
        Question {
            method,
            message: message.encode_to_vec().into(),
        }
    }
}

/// Connections to one server.
#[derive(Clone)]
pub(crate) struct Client(Vec<Channel>);

impl Client {
    pub(crate) fn new(server: SocketAddr) -> anyhow::Result<Client> {
        let endpoint = Endpoint::from_shared(format!("http://{server}"))?.tcp_nodelay(true);
        Ok(Client(
            (0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect(),
        ))
    }

    /// Asks once.
    pub(crate) async fn ask(&self, number: usize, question: &Question) -> anyhow::Result<()> {
        let channel = self.0[number % CONNECTIONS].clone();
        let mut client = Grpc::new(channel).max_decoding_message_size(usize::MAX);
        client.ready().await?;
        let method = PathAndQuery::from_static(question.method);
        let asked = client.unary(Request::new(question.message.clone()), method, AsBytes);
        asked.await.context(question.method)?;
        Ok(())
    }

    /// Asks each once, many at a time.
    pub(crate) async fn ask_all(&self, questions: impl Iterator<Item = Question>) -> anyhow::Result<()> {
        let mut open = JoinSet::new();
        for (number, question) in questions.enumerate() {
            if open.len() == OPEN
                && let Some(asked) = open.join_next().await
            {
                asked??;
            }
            let client = self.clone();
            open.spawn(async move { client.ask(number, &question).await });
        }
        while let Some(asked) = open.join_next().await {
            asked??;
        }
        Ok(())
    }

    /// Asks for so long. Returns answers per second.
    pub(crate) async fn rate(&self, question: &Question, time: Duration) -> anyhow::Result<f64> {
        let answers = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut open = JoinSet::new();
        for number in 0..OPEN {
            let (client, question, answers) = (self.clone(), question.clone(), answers.clone());
            open.spawn(async move {
                while began.elapsed() < time {
                    client.ask(number, &question).await?;
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            });
        }
        while let Some(asked) = open.join_next().await {
            asked??;
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let answers = answers.load(Ordering::Relaxed) as f64;
        Ok(answers / began.elapsed().as_secs_f64())
    }
}

/// Messages as they are on the wire, so that the client's own work is small beside the server's.
#[derive(Clone, Copy, Default)]
struct AsBytes;

impl Codec for AsBytes {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = AsBytes;
    type Decoder = AsBytes;

    fn encoder(&mut self) -> AsBytes {
        AsBytes
    }

    fn decoder(&mut self) -> AsBytes {
        AsBytes
    }
}

impl Encoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
