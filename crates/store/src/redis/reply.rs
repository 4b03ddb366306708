//! Reading what Redis answers.

use std::str::FromStr;

use bytes::Bytes;
use isochrone_model::{
    id::{DaemonId, Token, Topic},
    time::Reference,
};
use redis::{FromRedisValue, Value};

use crate::{
    Error,
    types::{DeviceState, Holder, Left},
};

/// An answer that is not what the script gives: `what` it was about, for the error.
pub(super) fn corrupt(what: &str, cause: impl ToString) -> Error {
    Error::Corrupt {
        key: what.to_owned(),
        cause: cause.to_string(),
    }
}

pub(super) fn read<T: FromRedisValue>(what: &str, value: Value) -> Result<T, Error> {
    redis::from_redis_value(value).map_err(|error| corrupt(what, error))
}

pub(super) fn parse<T: FromStr<Err: ToString>>(what: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: T::Err| corrupt(what, error.to_string()))
}

pub(super) fn holder(text: &str) -> Result<Holder, Error> {
    if text == "finished" {
        return Ok(Holder::Finished);
    }
    let [holder, _] = words("plotter", text)?;
    daemon(&holder).map(Holder::Plotter)
}

pub(super) fn words<const N: usize>(what: &'static str, text: &str) -> Result<[String; N], Error> {
    let words: Vec<String> = text.splitn(N, ' ').map(str::to_owned).collect();
    words
        .try_into()
        .map_err(|_| corrupt(what, format!("{text:?} has not {N} words")))
}

pub(super) fn token(text: &str) -> Result<Token, Error> {
    parse("token", text).map(Token)
}

pub(super) fn daemon(text: &str) -> Result<DaemonId, Error> {
    parse("daemon", text)
}

/// From a text in microseconds.
pub(super) fn reference_us(text: &str) -> Result<Reference, Error> {
    let us: i64 = parse("time", text)?;
    Ok(Reference(us.saturating_mul(1000)))
}

/// `how since`, as in the hash `left`.
pub(super) fn left(text: &str) -> Result<(Left, Reference), Error> {
    let [how, since] = words("left", text)?;
    let left = match how.as_str() {
        "never" => Left::Never,
        "given_back" => Left::GivenBack { session: false },
        "given_back_with_session" => Left::GivenBack { session: true },
        "died" => Left::Died,
        _ => return Err(corrupt("left", how)),
    };
    Ok((left, reference_us(&since)?))
}

pub(super) fn left_name(left: Left) -> &'static str {
    match left {
        Left::Never => "never",
        Left::GivenBack { session: false } => "given_back",
        Left::GivenBack { session: true } => "given_back_with_session",
        Left::Died => "died",
    }
}

/// `stored dropped`, as in the hash `counts`.
pub(super) fn counts(text: Option<&str>) -> Result<(u64, u64), Error> {
    let [stored, dropped] = words("counts", text.unwrap_or("0 0"))?;
    Ok((parse("counts", &stored)?, parse("counts", &dropped)?))
}

/// A registration and its row, as in the hashes `devices` and `rows`.
pub(super) fn device(registration: &[u8], row: &[u8]) -> Result<DeviceState, Error> {
    let device = serde_json::from_slice(registration).map_err(|error| corrupt("devices", error))?;
    let Some((flag, json)) = row.split_first() else {
        return Err(corrupt("rows", "an empty row"));
    };
    let mut row: isochrone_model::row::SendRow =
        serde_json::from_slice(json).map_err(|error| corrupt("rows", error))?;
    row.vanished |= *flag == b'V';
    Ok(DeviceState { device, row })
}

pub(super) fn row(row: &isochrone_model::row::SendRow) -> Result<Vec<u8>, Error> {
    let flag = match row {
        _ if row.ended => b'E',
        _ if row.vanished => b'V',
        _ => b'-',
    };
    let mut text = vec![flag];
    serde_json::to_writer(&mut text, row).map_err(|error| corrupt("rows", error))?;
    Ok(text)
}

pub(super) fn fields(what: &str, value: Value) -> Result<Vec<(String, Bytes)>, Error> {
    let fields: Vec<(String, Vec<u8>)> = read(what, value)?;
    Ok(fields
        .into_iter()
        .map(|(field, value)| (field, Bytes::from(value)))
        .collect())
}

pub(super) fn topic(text: &str) -> Topic {
    Topic::from(text)
}
