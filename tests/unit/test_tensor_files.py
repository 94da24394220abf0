import logging
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cuvler.download.digests import file_sha256, record_sha256
from cuvler.errors import DataError
from cuvler.tensor_files import read_tensors

ARRAYS = {"weight": np.arange(6.0).reshape(2, 3), "scale": np.float32(0.5)}
TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}


def write_new(path):
    torch.save(TENSORS, path)


def write_old(path):
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)


def write_pickle(path):
    path.write_bytes(pickle.dumps(ARRAYS, protocol=2))


WRITERS = {
    "zip.pth": write_new,
    "old.pth": write_old,
    "arrays.pkl": write_pickle,
    "tensors.safetensors": lambda path: save_file(TENSORS, path),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("dtype", ["?", "<i8", ">i4", "<f2", ">f4", "<f8", "u1", "<c8"])
def test_pickled_arrays_of_numbers_are_read(tmp_path, protocol, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    written = {"c": array, "f": array.T, "empty": array[:0], "scalar": array[1, 2]}
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps(written, protocol=protocol))
    content = read_tensors(path)
    for name, value in written.items():
        assert content[name].dtype == value.dtype.newbyteorder("=")
        np.testing.assert_array_equal(content[name], value)


@pytest.mark.parametrize("dtype", ["O", "S3", "U2", "M8[s]", "i4,f4"])
def test_pickled_arrays_of_anything_else_are_refused(tmp_path, dtype):
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps({"weight": np.zeros(2, dtype)}))
    with pytest.raises(DataError, match=r"arrays\.pkl"):
        read_tensors(path)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read(tmp_path, name):
    WRITERS[name](tmp_path / name)
    content = read_tensors(tmp_path / name)
    np.testing.assert_array_equal(content["weight"], ARRAYS["weight"])


def read_junk(path, content):
    """Read bytes as each caller does; only a DataError that names the file may come of them."""
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = read_tensors(path)
    except DataError as error:
        if str(path) not in str(error):
            raise
        return None
    assert isinstance(content, dict)
    return content


# Pickles are programs: bytes of their opcodes get further into the readers than any bytes do.
OPCODES = st.sampled_from([bytes([code]) for code in b"(.0123FGIJKLMNPQRSTUVXabcdeghijlopqrstu}]"])
JUNK = st.binary(max_size=60) | st.lists(OPCODES | st.binary(max_size=4)).map(b"".join)


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
@settings(max_examples=200, deadline=None)
@given(start=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04"]), junk=JUNK)
def test_junk_is_a_data_error(tmp_path_factory, suffix, start, junk):
    read_junk(tmp_path_factory.mktemp("junk") / f"w{suffix}", start + junk)


@st.composite
def damage(draw, content):
    """Bytes with some overwritten, and perhaps the end cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        position = draw(st.integers(0, len(content) - 1))
        content[position] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)) | st.just(len(content)))])


def written(tmp_path_factory, name):
    path = tmp_path_factory.mktemp("damaged") / name
    WRITERS[name](path)
    return path


def equal(content, expected):
    return content.keys() == expected.keys() and all(
        np.array_equal(content[name], value) for name, value in expected.items()
    )


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_a_data_error(tmp_path_factory, name, data):
    path = written(tmp_path_factory, name)
    content = read_junk(path, data.draw(damage(path.read_bytes())))
    # The other formats have no checksums.
    assert name != "zip.pth" or content is None or equal(content, TENSORS)


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_damage_passes_where_the_sha256_is_recorded(tmp_path_factory, name, data):
    path = written(tmp_path_factory, name)
    content = path.read_bytes()
    record_sha256(path, file_sha256(path))
    assert read_tensors(path).keys() >= {"weight"}
    damaged = data.draw(damage(content).filter(lambda found: found != content))
    assert read_junk(path, damaged) is None


def test_torchs_advice_to_read_without_checks_is_not_repeated(tmp_path):
    path = tmp_path / "photo.pth"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match=r"photo\.pth: not a file of tensors \(Unsupported operand"):
        read_tensors(path)


def test_a_flipped_bit_of_a_tensor_is_damage(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.full((1000,), 0.25)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((1000,), 0.25).numpy().tobytes()) + 2003] ^= 0x40
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["weight"].max() > 1e30  # torch takes it
    with pytest.raises(DataError, match=r"weights\.pth: damaged .*CRC"):
        read_tensors(path)


@pytest.mark.parametrize("name", WRITERS)
def test_formats_without_checksums_are_said_to_have_none(tmp_path, caplog, name):
    WRITERS[name](tmp_path / name)
    with caplog.at_level(logging.INFO):
        read_tensors(tmp_path / name)
    assert (f"no {name}.sha256" in caplog.text) == (name != "zip.pth")


@pytest.mark.parametrize("name", ["zip.pth", "zip.pth.sha256"])
def test_a_folder_in_place_of_a_file_is_named(tmp_path, name):
    write_new(tmp_path / "zip.pth")
    record_sha256(tmp_path / "zip.pth", file_sha256(tmp_path / "zip.pth"))
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=f"{name}: cannot be read"):
        read_tensors(tmp_path / "zip.pth")


@pytest.mark.parametrize("record", [b"", b"\xff\x00", b"0" * 64])
def test_damaged_records_are_named(tmp_path, record):
    path = tmp_path / "zip.pth"
    write_new(path)
    path.with_name("zip.pth.sha256").write_bytes(record)
    with pytest.raises(DataError, match=r"zip\.pth: .*zip\.pth\.sha256"):
        read_tensors(path)
