//! A server that does what a test says: raw HTTP/2 over in-memory pipes, so that resets, half-closes and windows show.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::task::TaskGroup;
use crate::tier2::remote::{BoxIo, Connect};

/// What becomes of connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    Refusing,
    Silent,
}

/// The far end. Clones are the same.
#[derive(Clone)]
pub(super) struct Peer {
    calls: Arc<AsyncMutex<mpsc::Receiver<Arrived>>>,
    shared: Arc<Shared>,
}

struct Shared {
    arrivals: mpsc::Sender<Arrived>,
    door: Mutex<Door>,
    dialed: AtomicUsize,
    arrived: AtomicUsize,
    /// Ends all connections that stand, at once and without a word.
    cut: Mutex<CancellationToken>,
    drain: Mutex<CancellationToken>,
    tasks: TaskGroup,
}

impl Peer {
    pub(super) fn new(tasks: &TaskGroup) -> Peer {
        let (arrivals, calls) = mpsc::channel(64);
        let shared = Shared {
            arrivals,
            door: Mutex::new(Door::Open),
            dialed: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            cut: Mutex::default(),
            drain: Mutex::default(),
            tasks: tasks.clone(),
        };
        Peer {
            calls: Arc::new(AsyncMutex::new(calls)),
            shared: Arc::new(shared),
        }
    }

    pub(super) fn set_door(&self, door: Door) {
        *self.shared.door.lock() = door;
    }

    /// Connects that were tried.
    pub(super) fn dialed(&self) -> usize {
        self.shared.dialed.load(Ordering::Relaxed)
    }

    /// Breaks every connection.
    pub(super) fn cut(&self) {
        std::mem::take(&mut *self.shared.cut.lock()).cancel();
    }

    /// Sends GOAWAY on every connection; what is open on them goes on.
    pub(super) fn drain(&self) {
        std::mem::take(&mut *self.shared.drain.lock()).cancel();
    }

    /// The next call, which must be of this method (of any, if it is empty).
    pub(super) async fn call(&self, method: &str) -> Arrived {
        let arrived = self.calls.lock().await.recv().await.unwrap();
        let path = arrived.request.uri().path();
        assert!(path.ends_with(method), "{path} came instead of {method}");
        arrived
    }

    /// Calls that have arrived.
    pub(super) fn arrived(&self) -> usize {
        self.shared.arrived.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Connect for Peer {
    async fn connect(&self) -> io::Result<BoxIo> {
        let number = self.shared.dialed.fetch_add(1, Ordering::Relaxed);
        let door = *self.shared.door.lock();
        match door {
            Door::Open => {}
            Door::Refusing => return Err(io::ErrorKind::ConnectionRefused.into()),
            Door::Silent => std::future::pending().await,
        }
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (shared, cut) = (self.shared.clone(), self.shared.cut.lock().clone());
        let drain = self.shared.drain.lock().clone();
        drop(self.shared.tasks.spawn(cut.run_until_cancelled_owned(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            let mut draining = false;
            loop {
                let accepted = tokio::select! {
                    accepted = connection.accept() => accepted,
                    () = drain.cancelled(), if !draining => {
                        draining = true;
                        connection.graceful_shutdown();
                        continue;
                    }
                };
                let Some(Ok((request, respond))) = accepted else {
                    return;
                };
                let (request, body) = request.into_parts();
                let arrived = Arrived {
                    request: Request::from_parts(request, ()),
                    body,
                    buffer: BytesMut::new(),
                    respond,
                    reply: None,
                    connection: number,
                };
                shared.arrived.fetch_add(1, Ordering::Relaxed);
                shared.arrivals.send(arrived).await.unwrap();
            }
        })));
        Ok(Box::new(near))
    }
}

/// A call that arrived.
pub(super) struct Arrived {
    pub(super) request: Request<()>,
    body: RecvStream,
    buffer: BytesMut,
    respond: SendResponse<Bytes>,
    reply: Option<SendStream<Bytes>>,
    /// Which connection it came on, counted from 0.
    pub(super) connection: usize,
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its sender said that it was complete.
    HalfClose,
    Reset(Reason),
}

impl Arrived {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap())
    }

    /// The next message of the request, or how it ended.
    pub(super) async fn message<M: Message + Default>(&mut self) -> Result<M, End> {
        loop {
            if let Some(mut head) = self.buffer.get(..5) {
                assert_eq!(head.get_u8(), 0, "not compressed");
                let len = usize::try_from(head.get_u32()).unwrap();
                if self.buffer.len() >= 5 + len {
                    self.buffer.advance(5);
                    return Ok(M::decode(self.buffer.split_to(len).freeze()).unwrap());
                }
            }
            match self.body.data().await {
                Some(Ok(data)) => {
                    self.body.flow_control().release_capacity(data.len()).unwrap();
                    self.buffer.put(data);
                }
                Some(Err(error)) => return Err(End::Reset(error.reason().unwrap())),
                None => {
                    assert!(self.buffer.is_empty(), "a message was cut");
                    return Err(End::HalfClose);
                }
            }
        }
    }

    /// Takes whatever comes, until the end.
    pub(super) async fn end<M: Message + Default>(&mut self) -> End {
        loop {
            if let Err(end) = self.message::<M>().await {
                return end;
            }
        }
    }

    /// Sends the headers, if they are not sent yet.
    pub(super) fn begin(&mut self) -> &mut SendStream<Bytes> {
        self.reply.get_or_insert_with(|| {
            let response = Response::builder().header("content-type", "application/grpc");
            self.respond
                .send_response(response.body(()).unwrap(), false)
                .unwrap()
        })
    }

    pub(super) fn send(&mut self, message: &impl Message) {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.encoded_len()).unwrap());
        framed.put_slice(&message.encode_to_vec());
        self.begin().send_data(framed.freeze(), false).unwrap();
    }

    /// Ends with a status behind whatever was sent.
    pub(super) fn finish(mut self, code: Code) {
        self.begin().send_trailers(status(code)).unwrap();
    }

    /// Ends with nothing but a status.
    pub(super) fn refuse(mut self, code: Code, more: &[(&'static str, &'static str)]) {
        let mut response = Response::builder().header("content-type", "application/grpc");
        let headers = response.headers_mut().unwrap();
        headers.extend(status(code));
        for (name, value) in more {
            headers.insert(*name, value.parse().unwrap());
        }
        let response = response.body(()).unwrap();
        self.respond.send_response(response, true).unwrap();
    }

    /// One message and OK.
    pub(super) fn answer(mut self, message: &impl Message) {
        self.send(message);
        self.finish(Code::Ok);
    }

    pub(super) fn reset(mut self, reason: Reason) {
        match &mut self.reply {
            Some(reply) => reply.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

fn status(code: Code) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", i32::from(code).into());
    trailers
}
