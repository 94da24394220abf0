import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvler.coco import AnnotationIds, write_annotations
from cuvler.coco.values import Refused

numbers = st.none() | st.integers(-3, 8) | st.sampled_from([2**63 - 1, 2**63 - 2, -(2**63)])


@given(stated=st.lists(numbers, max_size=30))
def test_ids_are_unique_and_kept_where_they_can_be(stated):
    ids = AnnotationIds()
    given_ids = [ids.unique(number) for number in stated]
    assert len(set(given_ids)) == len(given_ids)
    for place, (number, found) in enumerate(zip(stated, given_ids, strict=True)):
        if number is not None and number not in given_ids[:place]:
            assert found == number


def test_a_value_without_a_form_in_json_is_named_with_its_key(tmp_path):
    with (
        pytest.raises(Refused, match=r"'attributes' must be .* not {'x': nan}"),
        write_annotations(tmp_path / "a.json", {}) as writer,
    ):
        writer.add_annotation({"id": 1, "attributes": {"x": json.loads("NaN")}})
