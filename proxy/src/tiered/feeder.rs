//! Turns an upload into the stream of pieces that Tier 2 takes.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::unfold;

use super::session::Session;
use super::tape::Next;
use crate::blob::{Aborted, Piece, PieceStream};

/// The pieces of the upstream stream `attempt`, from byte 0: first what the staging file has, then what the client
/// sends. Ends with [`Aborted`] once another stream took over, the client failed or its bytes are gone.
pub(super) fn feed(session: Arc<Session>, attempt: u64) -> PieceStream {
    unfold(Some(session), move |session| async move {
        let session = session?;
        let Some(piece) = next_piece(&session, attempt).await else {
            return Some((Err(Aborted), None));
        };
        let more = matches!(piece, Piece::Data(_)).then_some(session);
        Some((Ok(piece), more))
    })
    .boxed()
}

async fn next_piece(session: &Session, attempt: u64) -> Option<Piece> {
    match session.next(attempt).await {
        (Next::Send(bytes), _) => Some(Piece::Data(bytes)),
        (Next::Finish(bytes), proof) => Some(Piece::Last(bytes, proof?)),
        (Next::ReadBack { from, len }, proof) => {
            let bytes = session.read_back(from, len).await?;
            let last = session.fed(attempt, bytes.len() as u64)?;
            Some(if last {
                Piece::Last(bytes, proof?)
            } else {
                Piece::Data(bytes)
            })
        }
        (Next::Wait | Next::GiveUp, _) => None,
    }
}
