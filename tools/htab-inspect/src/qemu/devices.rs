// SPDX-License-Identifier: GPL-2.0-or-later
//! The states of devices: passed over with the sizes that the description at the stream's end has.
//!
//! A device's state does not say where it ends. The description, JSON, lists the devices in the order in which they
//! were saved, with the size of each field (migration/vmstate.c, `vmsd_desc_field_end`).

use serde_json::Value;
use std::collections::VecDeque;

/// Bytes of what a subsection begins with, its name aside: type, the name's length, version.
const SUBSECTION_BYTES: u64 = 1 + 1 + 4;
/// What the description begins with: the stream's end mark, its own type.
const BEFORE_DESCRIPTION: [u8; 2] = [0x00, 0x06];
/// And the size of its text.
const SIZE_BYTES: usize = 4;

/// A device's state as the description has it.
#[derive(PartialEq, Eq, Debug)]
pub struct Device {
    pub name: String,
    pub instance: u64,
    /// Bytes between the section's header and its footer.
    pub size: u64,
}

/// The devices of a description among the last bytes of a stream, if there is one.
pub fn described(tail: &[u8]) -> Option<VecDeque<Device>> {
    let text_at = |at: usize| {
        let begin = at + BEFORE_DESCRIPTION.len() + SIZE_BYTES;
        let size = tail.get(at + BEFORE_DESCRIPTION.len()..begin)?;
        let size = usize::try_from(u32::from_be_bytes(size.try_into().ok()?)).ok()?;
        tail.get(begin..begin.checked_add(size)?).filter(|text| text.first() == Some(&b'{'))
    };
    tail.windows(BEFORE_DESCRIPTION.len())
        .enumerate()
        .rev()
        .filter(|(_, window)| *window == BEFORE_DESCRIPTION)
        .filter_map(|(at, _)| text_at(at))
        .find_map(|text| devices(&serde_json::from_slice(text).ok()?))
}

fn devices(description: &Value) -> Option<VecDeque<Device>> {
    let device = |device: &Value| {
        Some(Device {
            name: device.get("name")?.as_str()?.to_owned(),
            instance: device.get("instance_id")?.as_u64()?,
            size: size_of(device)?,
        })
    };
    description.get("devices")?.as_array()?.iter().map(device).collect()
}

/// Of what has fields and may have subsections.
fn size_of(described: &Value) -> Option<u64> {
    let mut size = 0_u64;
    for field in described.get("fields")?.as_array()? {
        let elements = field.get("array_len").map_or(Some(1), Value::as_u64)?;
        size = size.checked_add(field.get("size")?.as_u64()?.checked_mul(elements)?)?;
    }
    for subsection in described.get("subsections").and_then(Value::as_array).into_iter().flatten() {
        let name = subsection.get("vmsd_name")?.as_str()?.len() as u64;
        size = size.checked_add(SUBSECTION_BYTES + name)?.checked_add(size_of(subsection)?)?;
    }
    Some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_description(json: &str) -> Vec<u8> {
        let mut bytes = b"\x00\x06\x00\x00state of a device".to_vec();
        bytes.extend([0, 6]);
        bytes.extend(u32::try_from(json.len()).unwrap().to_be_bytes());
        bytes.extend(json.as_bytes());
        bytes
    }

    #[test]
    fn sizes_are_those_of_fields_arrays_and_subsections() {
        let json = r#"{"page_size": 4096, "devices": [{"name": "a", "instance_id": 7, "version": 1, "fields": [
            {"name": "x", "type": "uint32", "size": 4},
            {"name": "y", "array_len": 3, "type": "struct", "struct": {"fields": [{"size": 99}]}, "size": 8}],
            "subsections": [{"vmsd_name": "a/sub", "version": 1, "fields": [{"name": "z", "size": 2}]}]}]}"#;
        let found = described(&with_description(json)).unwrap();
        assert_eq!(found, [Device { name: "a".into(), instance: 7, size: 4 + 24 + 6 + 5 + 2 }]);
    }

    #[test]
    fn what_is_no_description_is_none() {
        for json in ["{", "{}", r#"{"devices": [{"name": "a"}]}"#, "[]"] {
            assert_eq!(described(&with_description(json)), None, "{json}");
        }
        assert_eq!(described(b""), None);
        assert_eq!(described(&[0, 6, 0xff, 0xff, 0xff, 0xff, b'{']), None);
    }
}
