import numpy as np
import pytest

from diffident.data import open_dataset
from diffident.errors import InputError

MISTAKES = {
    "mixed": (
        "text,label\na,1\nb,cat\n",
        {},
        "`label` must hold numbers or names, not both; got 1 at row 2 and 'cat' at row 3 of {path}. "
        "Write all labels in one way.",
    ),
    "missing": (
        "text,label\na,x\nb,\n",
        {},
        "`label` must have a label in every row; got none at row 3 of {path}. Fill it in, or remove the row.",
    ),
    "negative": ("text,label\na,-1\nb,0\n", {}, "`label` must be at least 0; got -1 at row 2 of {path}. Re-index."),
    "column": (
        "text,label\na,0\n",
        {"label_column": "lable"},
        "`--label-column` must name a column of {path}; got `lable`. Did you mean `label`? Choices: label, text.",
    ),
    "number": (
        "a,b,label\n1,2,0\n3,,1\n",
        {},
        "`b` must have a number in every row; got none at row 3 of {path}. Fill it in.",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_csv_says_what_where_and_how(mistake, tmp_path):
    content, options, message = MISTAKES[mistake]
    path = tmp_path / "data.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        open_dataset(path, **options)
    assert str(caught.value) == message.format(path=path)


def test_empty_class_folder_is_named(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path)
    assert str(caught.value) == (
        f"`DATA` must have images in every class folder; {tmp_path / 'cat'} has none. Add some, or delete the folder."
    )


def test_digits_splits_share_no_ids_and_limit_keeps_ids():
    splits = [open_dataset(f"digits:{split}") for split in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [1000, 197, 600]
    assert len(set(np.concatenate([split.ids for split in splits]))) == 1797
    assert open_dataset("digits", limit=3).ids.tolist() == ["digits:0000", "digits:0599", "digits:1198"]
