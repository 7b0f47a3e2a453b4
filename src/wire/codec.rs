//! Protobuf over gRPC. Bytes that are no message are INVALID_ARGUMENT, never the library's INTERNAL; on a stream of
//! `Up` they become an empty `Up`, which the stream answers as `malformed` and goes on.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::{schema, v1};
use crate::error::{Fault, Kind};
use crate::phrase::protobuf::Broken;

/// Reads a message from bytes. Errors: `malformed`, with the path of what is wrong.
pub fn read<T: Message + Default>(bytes: impl Buf) -> Result<T, Fault> {
    T::decode(bytes).map_err(|error| malformed::<T>(&error))
}

fn malformed<T>(error: &prost::DecodeError) -> Fault {
    let name = schema::name_of::<T>();
    Fault::new(Kind::Malformed, format!("not the protobuf of the message {name}: {}", Broken::of(error)))
}

/// The codec of every generated service and client.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Out<T>;
    type Decoder = In<U>;

    fn encoder(&mut self) -> Out<T> {
        Out(PhantomData)
    }

    fn decoder(&mut self) -> In<U> {
        In(PhantomData)
    }
}

/// Writes messages.
#[derive(Debug)]
pub struct Out<T>(PhantomData<T>);

impl<T: Message> Encoder for Out<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buf).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// Reads messages.
#[derive(Debug)]
pub struct In<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for In<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let decoded = U::decode(&mut *buf);
        // What a failed read leaves would be taken for the next message's header, and end the stream.
        buf.advance(buf.remaining());
        match decoded {
            Ok(message) => Ok(Some(message)),
            // An error here would end the stream; an empty `Up` is as malformed and ends nothing.
            Err(_) if TypeId::of::<U>() == TypeId::of::<v1::Up>() => Ok(Some(U::default())),
            // Bare: who answers knows the request's id (`fault::from_transport`).
            Err(error) => Err(Status::invalid_argument(malformed::<U>(&error).detail)),
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
