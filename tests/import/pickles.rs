//! Hand-made pickles: what is refused, by name and position, and the odd forms that are read.

use pivotal::import::checkpoint::parse_checkpoint;
use pivotal::import::pickle::{Object, Value, read_pickle};
use tch::Kind;

use super::tensor_bytes;

/// A legacy file around the opcodes of its object, with one storage of four floats under key `0`.
fn legacy(object: &[u8], keys: &[u8], data: &[u8]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    file.extend(b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.");
    for part in [b"\x80\x02", object, b".\x80\x02", keys, b".", data] {
        file.extend_from_slice(part);
    }
    file
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// `{'model_state': {'w': <value>}}`
fn model_state(value: &[u8]) -> Vec<u8> {
    [b"}", &text("model_state")[..], b"}", &text("w")[..], value, b"ss"].concat()
}

/// `('storage', torch.<class>, '0', 'cuda:0', <numel>)` as a persistent id.
fn storage(class: &str, numel: u8) -> Vec<u8> {
    let global = format!("ctorch\n{class}\n");
    [b"(", &text("storage")[..], global.as_bytes(), &text("0")[..], &text("cuda:0")[..], &[b'K', numel], b"tQ"].concat()
}

/// [`storage`] as old legacy files name a part of it.
fn viewed(start: u8, size: u8) -> Vec<u8> {
    let whole = storage("FloatStorage", 4);
    let fields = whole.strip_suffix(b"tQ").unwrap();
    [fields, &text("part")[..], &[b'K', start, b'K', size], b"\x87tQ"].concat()
}

/// A call of `_rebuild_tensor_v2` on [`storage`]; the numbers are opcodes.
fn tensor(storage: &[u8], offset: &[u8], size: &[u8], stride: &[u8]) -> Vec<u8> {
    let head = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    [&head[..], storage, offset, size, stride, b"\x89N", b"tR"].concat()
}

fn floats() -> Vec<u8> {
    [&4_u64.to_le_bytes()[..], &[1.0_f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat()].concat()
}

const KEYS: &[u8] = b"]X\x01\x00\x00\x000a";

#[test]
fn views_with_strides_offsets_and_repeats_are_gathered() {
    type Case<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a [i64], &'a [f32]);
    let cases: &[Case<'_>] = &[
        (b"K\x00", b"K\x04\x85", b"K\x01\x85", &[4], &[1.0, 2.0, 3.0, 4.0]),
        (b"K\x00", b"K\x02K\x02\x86", b"K\x01K\x02\x86", &[2, 2], &[1.0, 3.0, 2.0, 4.0]),
        (b"K\x01", b"K\x02\x85", b"K\x02\x85", &[2], &[2.0, 4.0]),
        (b"K\x03", b"K\x03\x85", b"K\x00\x85", &[3], &[4.0, 4.0, 4.0]),
        (b"K\x02", b")", b")", &[], &[3.0]),
        (b"K\x04", b"K\x00K\x07\x86", b"K\x07K\x01\x86", &[0, 7], &[]),
        // torch.Size instead of a tuple, and a size of one with a meaningless stride.
        (b"K\x03", b"ctorch\nSize\nK\x01\x85\x85R", b"M\xe8\x03\x85", &[1], &[4.0]),
    ];
    for (offset, size, stride, shape, values) in cases {
        let object = model_state(&tensor(&storage("FloatStorage", 4), offset, size, stride));
        let tensors = parse_checkpoint(&legacy(&object, KEYS, &floats())).unwrap_or_else(|e| panic!("{shape:?}: {e}")).tensors;
        assert_eq!(tensors["w"].size(), *shape);
        assert_eq!(tensor_bytes(&tensors["w"]), values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>(), "{shape:?}");
    }
}

#[test]
fn view_of_a_storage_shifts_the_tensor() {
    let object = model_state(&tensor(&viewed(1, 3), b"K\x01", b"K\x02\x85", b"K\x01\x85"));
    let tensors = parse_checkpoint(&legacy(&object, KEYS, &floats())).unwrap().tensors;
    assert_eq!(tensor_bytes(&tensors["w"]), [3.0_f32, 4.0].map(f32::to_le_bytes).concat());
}

#[test]
fn storage_classes_set_the_element_type_and_bools_are_normalised() {
    let data = [&4_u64.to_le_bytes()[..], &[0, 1, 255, 7]].concat();
    for (class, kind, bytes) in [
        ("ByteStorage", Kind::Uint8, [0, 1, 255, 7]),
        ("CharStorage", Kind::Int8, [0, 1, 255, 7]),
        ("BoolStorage", Kind::Bool, [0, 1, 1, 1]),
    ] {
        let object = model_state(&tensor(&storage(class, 4), b"K\x00", b"K\x04\x85", b"K\x01\x85"));
        let tensors = parse_checkpoint(&legacy(&object, KEYS, &data)).unwrap().tensors;
        assert_eq!((tensors["w"].kind(), tensor_bytes(&tensors["w"])), (kind, bytes.to_vec()), "{class}");
    }
}

#[test]
fn hostile_objects_are_refused_with_name_and_position() {
    let whole =
        |offset: &[u8], size: &[u8], stride: &[u8]| model_state(&tensor(&storage("FloatStorage", 4), offset, size, stride));
    let deep = [b"(".repeat((1 << 20) + 1), b"N".to_vec()].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"cos\nsystem\nX\x02\x00\x00\x00id\x85R".to_vec(), "legacy object: byte 47: global `os.system` is refused"),
        (b"\x8c\x08builtins\x8c\x04eval\x93)R".to_vec(), "global `builtins.eval` is refused"),
        (b"c__builtin__\nexec\n)R".to_vec(), "global `__builtin__.exec` is refused"),
        (b"ctorch.storage\n_load_from_bytes\nC\x00\x85R".to_vec(), "global `torch.storage._load_from_bytes` is refused"),
        (b"cnumpy\nload\n)R".to_vec(), "global `numpy.load` is refused"),
        (b"ccollections\nOrderedDict.x\n)R".to_vec(), "global `collections.OrderedDict.x` is refused"),
        (b"c\x1b[2J\nx\n".to_vec(), "global `\\u{1b}[2J.x` is refused"),
        (b"(ios\nsystem\n".to_vec(), "opcode INST (0x69) is refused"),
        (b"(cos\nsystem\no".to_vec(), "global `os.system` is refused"),
        (b"\x82\x01".to_vec(), "opcode EXT1 (0x82) is refused"),
        (b"\xff".to_vec(), "0xff is not a pickle opcode"),
        (b"\x80\x06".to_vec(), "protocol 6; 2 to 5 are read"),
        (b"h\x05".to_vec(), "memo entry 5 was never stored"),
        (b"0".to_vec(), "the stack is empty"),
        (b"t".to_vec(), "no MARK is open"),
        (b"X\xff\xff\xff\x7fab".to_vec(), "2147483647 bytes needed"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab".to_vec(), "18446744073709551615 bytes needed"),
        (b"NNs".to_vec(), "the stack is empty"),
        (b"NNNs".to_vec(), "the target of SETITEM is None, a dict needed"),
        (b"NNR".to_vec(), "the callable of REDUCE is None, a class needed"),
        (b"NNb".to_vec(), "the target of BUILD is None, a dict needed"),
        (b"ctorch\nFloatStorage\n)R".to_vec(), "storages are named by persistent ids, not called"),
        (deep, "more than 1048576 open MARKs"),
        (b"N".repeat((1 << 20) + 1), "more than 1048576 values on the stack"),
        (b"]0".repeat((1 << 21) + 1), "more than 2097152 values"),
        (storage("ComplexFloatStorage", 4), "global `torch.ComplexFloatStorage` is refused"),
        ([&text("x")[..], b"Q"].concat(), "a persistent id is str, a tuple needed"),
        ([b"(", &text("module")[..], b"NNNNtQ"].concat(), "the tag of a persistent id is module; only `storage` is read"),
        (
            [b"(", &text("storage")[..], b"ctorch\nFloatStorage\n", &text(&"k".repeat(65)), b"NK\x04tQ"].concat(),
            "more than 64 bytes in the key of a storage",
        ),
        (
            [storage("FloatStorage", 4), storage("FloatStorage", 5)].concat(),
            "the declaration of a storage is 5 elements of Float for key `0`; it was 4 elements of Float before",
        ),
        (viewed(3, 2), "the view of a storage is 2 elements from 3; the storage has 4"),
        (
            model_state(&tensor(&viewed(1, 2), b"K\x01", b"K\x02\x85", b"K\x01\x85")),
            "at offset 1; it leaves its storage `0` of 2 elements",
        ),
        (whole(b"K\x01", b"K\x04\x85", b"K\x01\x85"), "at offset 1; it leaves its storage `0` of 4 elements"),
        (whole(b"K\x00", b"K\x02\x85", b"K\x04\x85"), "of size [2] and stride [4] at offset 0; it leaves its storage"),
        (whole(b"J\xff\xff\xff\xff", b"K\x04\x85", b"K\x01\x85"), "the offset of a tensor is -1; it cannot be negative"),
        (whole(b"K\x00", b"J\xff\xff\xff\xff\x85", b"K\x01\x85"), "the size of a tensor is -1; it cannot be negative"),
        (whole(b"K\x00", b"K\x04\x85", b")"), "of 1 sizes and 0 strides"),
        (whole(b"K\x00", b"(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01t", b")"), "at most 8 dimensions are read"),
        (whole(b"K\x00", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x00\x86", b"K\x00K\x00\x86"), "no memory is that large"),
        (whole(b"K\x00", b"\x8a\x05\x00\x00\x00\x00\x10\x85", b"K\x00\x85"), "w would unpack to more than 1052"),
    ];
    for (object, wanted) in &cases {
        let error = parse_checkpoint(&legacy(object, KEYS, &floats())).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted:?} is not in {error:?}");
    }
}

#[test]
fn checkpoints_of_another_make_say_what_they_hold() {
    let empty: &[u8] = b"]";
    let unnamed = [b"}", &text("model_state")[..], b"}K\x01Nss"].concat();
    let twice = [b"}", &text("model_state")[..], b"}(", &text("w")[..], b"N", &text("w")[..], b"Nus"].concat();
    for (object, wanted) in [
        (b"N".to_vec(), "the file holds None, a dict with `model_state` is needed"),
        ([b"}", &text("state_dict")[..], b"}s"].concat(), "a dict with the keys [\"state_dict\"], a dict with `model_state`"),
        (unnamed, "a name in model_state is int, str needed"),
        (twice, "`w` appears twice in model_state"),
    ] {
        let error = parse_checkpoint(&legacy(&object, empty, b"")).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted:?} is not in {error:?}");
    }
    let not_tensors = [b"}", &text("model_state")[..], b"}", &text("extra")[..], b"K\x05ss"].concat();
    let checkpoint = parse_checkpoint(&legacy(&not_tensors, empty, b"")).unwrap();
    assert_eq!(checkpoint.skipped, ["model_state.extra (int)"]);
}

#[test]
fn metadata_numpy_scalars_stay_inert() {
    let scalar =
        b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8K\x00K\x01\x87R(K\x03NtbC\x08\0\0\0\0\0\0\0\0\x86R";
    let object = [b"}(", &text("best")[..], scalar, &text("model_state")[..], b"}u"].concat();
    let checkpoint = parse_checkpoint(&legacy(&object, b"]", b"")).unwrap();
    assert_eq!(checkpoint.skipped, ["best (`numpy scalar`)"]);
}

#[test]
fn pickle_numbers_and_shared_objects_read_as_python_does() {
    for (code, value) in [
        (&b"J\xfe\xff\xff\xff."[..], Value::Int(-2)),
        (b"M\xff\xff.", Value::Int(65535)),
        (b"\x8a\x01\xff.", Value::Int(-1)),
        (b"\x8a\x00.", Value::Int(0)),
        (b"\x8a\x02\xff\x00.", Value::Int(255)),
        (b"G\x3f\xf8\0\0\0\0\0\0.", Value::Float(1.5)),
        (b"\x95\x02\0\0\0\0\0\0\0\x88.", Value::Bool(true)),
    ] {
        assert_eq!(read_pickle(code, 0).unwrap().root, value, "{code:x?}");
    }
    // A list that holds itself, and is changed after it was stored in the memo.
    let pickle = read_pickle(b"\x80\x04]\x94h\x00aK\x07a.", 0).unwrap();
    let items = pickle.heap.items(pickle.root).unwrap();
    assert_eq!(items, [pickle.root, Value::Int(7)]);
    let Some(Object::List(_)) = pickle.heap.object(items[0]) else { panic!("not the list itself") };
}
