//! Bytes over gRPC as they are: for messages that no client of the schema would send.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::within;

/// A codec that changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buf.copy_to_bytes(buf.remaining())))
    }
}

/// A unary call of `latentd.v1.Live` with this message.
pub async fn unary(channel: &Channel, call: &str, message: impl Into<Bytes>) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(64 << 20);
    grpc.ready().await.expect("the channel is ready");
    let asked = grpc.unary(Request::new(message.into()), path(call), Raw);
    within("a unary call", asked).await.map(tonic::Response::into_inner)
}

/// A stream of `latentd.v1.Live/Stream` whose messages up are these bytes.
pub async fn stream(channel: &Channel, ups: mpsc::Receiver<Bytes>) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(64 << 20);
    grpc.ready().await.expect("the channel is ready");
    let asked = grpc.streaming(Request::new(ReceiverStream::new(ups)), path("Stream"), Raw);
    within("a stream", asked).await.map(tonic::Response::into_inner)
}

fn path(call: &str) -> PathAndQuery {
    format!("/latentd.v1.Live/{call}").parse().expect("a path")
}
