import json

import numpy as np
import pytest
from PIL import Image

from diffident.data import open_dataset
from diffident.data.columns import MOST_CLASSES
from diffident.errors import DataWarning, InputError, UnreadableSampleError

WORDS = "text,label\nhello,x\nworld,y\n"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def message(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        open_dataset(path, **options)
    return str(caught.value)


def contents(dataset) -> list:
    return [dataset[row] for row in range(len(dataset))]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", WORDS),
        ("a.CSV", WORDS),
        ("a.tsv", WORDS.replace(",", "\t")),
        ("a.csv", b"\xef\xbb\xbf" + WORDS.encode()),
        ("a.csv", WORDS.replace("\n", "\r\n")),
        ("a.csv", WORDS.replace("\n", "\r")),
        ("a.csv", '"text","label"\n"hello","x"\n"world","y"\n'),
        ("a.csv", "\n\n" + WORDS.replace("\n", "\n\n")),
        ("a.csv", WORDS.rstrip("\n")),
        ("a.jsonl", '{"text": "hello", "label": "x"}\n\n{"text": "world", "label": "y"}'),
        (
            "a.ndjson",
            '\ufeff{"label": "x", "text": "hello"}\r\n{"text": "world", "label": "y", "more": {"b": [1]}}\r\n',
        ),
    ],
)
def test_ways_to_write_the_same_table(name, content, tmp_path):
    dataset = open_dataset(write(tmp_path / name, content))
    assert contents(dataset) == ["hello", "world"]
    assert dataset.labels.tolist() == [0, 1]
    assert dataset.label_names == ("x", "y")
    assert dataset.ids.tolist() == ["a:000000", "a:000001"]


def test_cells_are_kept_as_they_are_written(tmp_path):
    texts = ["NA", "null", 'with "quotes", commas', "two\nlines", "", " ", "1", "x" * 3_000_000, "line\u2028separator"]
    rows = "".join('"{}",1\n'.format(text.replace('"', '""')) for text in texts)
    assert contents(open_dataset(write(tmp_path / "a.csv", "text,label\n" + rows))) == texts
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    assert contents(open_dataset(write(tmp_path / "a.jsonl", lines))) == texts


@pytest.mark.parametrize(
    ("cells", "labels", "names"),
    [
        (["1", "0"], [1, 0], None),
        (["1.0", "0.00"], [1, 0], None),
        ([" 2 ", "+1"], [2, 1], None),
        ([1.0, 0], [1, 0], None),
        (["b", "a"], [1, 0], ("a", "b")),
        ([True, False], [1, 0], ("False", "True")),
        (["1e3", "nan"], [0, 1], ("1e3", "nan")),
        (["3", "3"], [3, 3], None),
    ],
)
def test_labels_are_numbers_or_names(cells, labels, names, tmp_path):
    lines = "".join(json.dumps({"text": "a", "label": cell}) + "\n" for cell in cells)
    dataset = open_dataset(write(tmp_path / "a.jsonl", lines))
    assert dataset.labels.tolist() == labels
    assert dataset.label_names == names


def test_other_label_columns_of_csv_and_jsonl(tmp_path):
    content = "text,label,noisy,said,note,part\na,x,1,y,n,1\nb,y,0,x,n,\n"
    dataset = open_dataset(write(tmp_path / "a.csv", content))
    assert {name: column.tolist() for name, column in dataset.columns.items()} == {"noisy": [1, 0], "said": [1, 0]}
    lines = '{"text": "a", "label": 0, "noisy": 1, "box": [1]}\n{"text": "b", "label": 1, "noisy": 1, "box": [2]}\n'
    assert list(open_dataset(write(tmp_path / "a.jsonl", lines)).columns) == ["noisy"]


def test_columns_that_are_chosen_serve_nothing_else(tmp_path):
    path = write(tmp_path / "a.csv", "category,y\nhello,1\nworld,0\n")
    dataset = open_dataset(path, text_column="category")
    assert contents(dataset) == ["hello", "world"]
    assert dataset.labels.tolist() == [1, 0]


def test_image_paths_are_relative_to_the_file_or_absolute(tmp_path):
    for number in range(2):
        Image.new("L", (1, 1), number).save(tmp_path / f"{number}.png")
    path = write(tmp_path / "a.csv", f"image,label,id\n0.png,x,first\n{tmp_path / '1.png'},y,second\n")
    dataset = open_dataset(path)
    assert [image.getpixel((0, 0)) for image in contents(dataset)] == [0, 1]
    assert dataset.ids.tolist() == ["first", "second"]
    Image.new("L", (3, 3), 9).save(tmp_path / "1.png")
    assert open_dataset(path).fingerprint != dataset.fingerprint


def test_missing_image_file_is_named_when_it_is_read(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.csv", "file,label\ngone.png,x\n"))
    with pytest.raises(UnreadableSampleError) as caught:
        dataset[0]
    assert str(caught.value) == (
        f"sample `a:000000` must be a readable image file; {tmp_path}/gone.png: No such file or directory. "
        "Mend the path, or remove the row."
    )


def test_numeric_columns_are_vectors(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.csv", "a,label,b,label_of_bob\n1,0,2.5,1\n-3,1,1e2,1\n"))
    assert dataset.modality == "vector"
    np.testing.assert_array_equal(contents(dataset), np.array([[1, 2.5], [-3, 100]], dtype=np.float32))
    assert list(dataset.columns) == ["label_of_bob"]


def test_columns_without_numbers_are_left_out_and_said(tmp_path):
    path = write(tmp_path / "a.csv", ",a,species,empty,y\n0,1,cat,,0\n1,2,dog,,1\n")
    with pytest.warns(DataWarning) as caught:
        dataset = open_dataset(path)
    assert str(caught[0].message) == f"no numbers in ``, `species`, `empty` of {path}: left out."
    np.testing.assert_array_equal(contents(dataset), np.array([[1], [2]], dtype=np.float32))


MISTAKES = {
    "mixed": (
        "text,label\na,1\nb,cat\nc,2\nd,dog\n",
        "`label` must hold numbers or names, not both; got 1 at row 2 and 'cat' at row 3 of {path}. "
        "Write all labels in one way.",
    ),
    "missing": (
        "text,label\na,x\nb,\n",
        "`label` must have a label in every row; got none at row 3 of {path}. Fill it in, or remove the row.",
    ),
    "blank": (
        "text,label\na,x\nb,  \n",
        "`label` must have a label in every row; got none at row 3 of {path}. Fill it in, or remove the row.",
    ),
    "negative": (
        "text,label\na,0\nb,-1\nc,-1\n",
        "`label` must be at least 0; got -1 at row 3 of {path}. Re-index.",
    ),
    "fraction": (
        "text,label\na,1\nb,0.5\n",
        "`label` must hold class numbers or names; got 0.5 at row 3 of {path}. "
        "Write classes, or choose another column.",
    ),
    "amount": (
        "text,label\na,1\nb,99999999999999999999\n",
        "`label` must be in [0, 100,000); got 99999999999999999999 at row 3 of {path}. Choose another column.",
    ),
    "number": (
        "a,b,label\n1,2,0\n3,,1\n",
        "`b` must have a number in every row; got none at row 3 of {path}. Fill it in.",
    ),
    "word": (
        "a,b,label\n1,2,0\n3,2.x,1\n",
        "`b` must have a number in every row; got '2.x' at row 3 of {path}. Mend it, or remove the column.",
    ),
    "infinity": ("a,label\ninf,0\n", "`a` must be finite; got inf at row 2 of {path}. Mend it."),
    "beyond float32": ("a,label\n1e99,0\n", "`a` must be finite; got 1e+99 at row 2 of {path}. Mend it."),
    "no sample": (
        "label,note\n0,a\n",
        "`DATA` must have a text, image or numeric column; {path} has the columns label, note. "
        "Name one with --text-column or --image-column.",
    ),
    "empty": ("", "`DATA` must hold samples; {path} is empty. Choose another file."),
    "header only": ("text,label\n", "`DATA` must hold samples; {path} has none. Choose another file or split."),
    "column twice": (
        "text,label,text\na,0,b\n",
        "`DATA` must name every column once; {path} has `text` twice. Rename one.",
    ),
    "semicolons": (
        "text;label\na;0\n",
        "`DATA` must have commas between cells; {path} has semicolons. Save it with commas, or as .tsv.",
    ),
    "tabs": (
        "text\tlabel\na\t0\n",
        "`DATA` must have commas between cells; {path} has tabs. Save it with commas, or as .tsv.",
    ),
    "open quotation mark": (
        'text,label\n"a",0\n"b,1\nc,0\n',
        "`DATA` must be a CSV file with a header line; {path} is not: CSV parse error: Row #3: Expected 2 columns, "
        'got 1: "b,1. Mend that row.',
    ),
    "open quotation mark at the end": (
        'text,label\na,0\nb,"1\nc,0\n',
        "`DATA` must close every quotation mark; {path} has one open up to its end. Close it.",
    ),
    "ragged": (
        "text,label\na,0\nb,c,1\n",
        "`DATA` must be a CSV file with a header line; {path} is not: CSV parse error: Row #3: Expected 2 columns, "
        "got 3: b,c,1. Mend that row.",
    ),
    "latin": (
        b"text,label\n\xe4,0\n",
        "`DATA` must be UTF-8; {path} is not, at byte 11. Convert it with: iconv -t utf-8.",
    ),
    "id twice": (
        "id,text\nx,a\ny,b\nx,c\n",
        "`id` must be unique; got 'x' at rows 2 and 4 of {path}. Choose another id column.",
    ),
    "id missing": (
        "id,text\nx,a\n,b\n",
        "`id` must have an id in every row; got none at row 3 of {path}. Fill it in with text or a number.",
    ),
    "path missing": (
        "image,label\n,0\n",
        "`image` must have a path in every row; got none at row 2 of {path}. Fill it in.",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_csv_says_what_where_and_how(mistake, tmp_path):
    content, expected = MISTAKES[mistake]
    path = write(tmp_path / "data.csv", content)
    assert message(path) == expected.format(path=path)


JSON_MISTAKES = {
    "no JSON": (
        '{"text": "a"}\n\n{"text": \n',
        "`DATA` must have JSON on every line; line 3 of {path} is not: Expecting value: line 1 column 10 (char 9). "
        "Mend it.",
    ),
    "too deep": (
        "[" * 100_000,
        "`DATA` must have JSON on every line; line 1 of {path} is not: maximum recursion depth",
    ),
    "half a surrogate pair": (
        '{"text": "a"}\n{"text": "b", "id": "\\ud800"}\n',
        "`DATA` must have JSON on every line; line 2 of {path} is not: 'utf-8' codec can't encode character '\\ud800'",
    ),
    "no object": ("[1, 2]\n", "`DATA` must have an object on every line; got [1, 2] at line 1 of {path}. Mend it."),
    "no keys": ("{}\n", "`DATA` must have a text, image or numeric column; {path} has the columns none. Name one with"),
    "nested text": (
        '{"text": {"en": "a"}}\n',
        "`text` must have a text in every row; got a dict at row 1 of {path}. Fill it in.",
    ),
    "no text": (
        '{"text": "a"}\n\n{"title": "b"}\n',
        "`text` must have a text in every row; got none at row 3 of {path}. Fill it in.",
    ),
    "NaN text": ('{"text": NaN}\n', "`text` must have a text in every row; got none at row 1 of {path}. Fill it in."),
    "nested label": (
        '{"text": "a", "label": [1]}\n',
        "`label` must be a number or a name; got a list at row 1 of {path}. Choose another column.",
    ),
    "NaN label": (
        '{"text": "a", "label": NaN}\n',
        "`label` must have a label in every row; got none at row 1 of {path}. Fill it in, or remove the row.",
    ),
    "infinite label": (
        '{"text": "a", "label": Infinity}\n',
        "`label` must hold class numbers or names; got inf at row 1 of {path}. Write classes, or choose another",
    ),
    "number and truth": (
        '{"text": "a", "label": 1}\n{"text": "a", "label": true}\n',
        "`label` must hold numbers or names, not both; got 1 at row 1 and 'True' at row 2 of {path}. "
        "Write all labels in one way.",
    ),
    "nested image": (
        '{"image": {"path": "a.png"}}\n',
        "`image` must have a path in every row; got a dict at row 1 of {path}. Fill it in.",
    ),
    "nested id": (
        '{"text": "a", "id": [1]}\n',
        "`id` must have an id in every row; got a list at row 1 of {path}. Fill it in with text or a number.",
    ),
    "id as number and text": (
        '{"text": "a", "id": 1}\n{"text": "b", "id": "1"}\n',
        "`id` must be unique; got '1' at rows 1 and 2 of {path}. Choose another id column.",
    ),
}


@pytest.mark.parametrize("mistake", JSON_MISTAKES)
def test_mistake_in_jsonl_says_what_where_and_how(mistake, tmp_path):
    content, expected = JSON_MISTAKES[mistake]
    path = write(tmp_path / "data.jsonl", content)
    assert message(path).startswith(expected.format(path=path))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"label_column": "lable"},
            "`--label-column` must name a column of {path}; got `lable`. Did you mean `label`? Choices: label, text.",
        ),
        (
            {"text_column": "text", "image_column": "text"},
            "`--text-column` and `--image-column` must not be used together; leave one out.",
        ),
        ({"limit": 0}, "`limit` must be at least 1; got 0. Leave it out for everything."),
    ],
)
def test_wrong_options_are_named(options, expected, tmp_path):
    path = write(tmp_path / "a.csv", WORDS)
    assert message(path, **options) == expected.format(path=path)


def test_largest_class_number(tmp_path):
    path = write(tmp_path / "a.csv", f"text,label\na,{MOST_CLASSES - 1}\n")
    assert open_dataset(path).num_classes == MOST_CLASSES


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("fotos", "`DATA` must be there; got {0}/fotos, which is not. Did you mean `photos`? Forms: "),
        ("none/photos", "`DATA` must be there; got {0}/none/photos, which is not. {0}/none is not there either. "),
        ("photos/a.txt", "`DATA` must be in a known form; got {0}/photos/a.txt. Forms: "),
        ("x" * 300, "`DATA` must be there; got {0}/" + "x" * 300 + ", which is not. Check the spelling. Forms: "),
    ],
)
def test_paths_that_lead_nowhere(spec, expected, tmp_path):
    (tmp_path / "photos").mkdir()
    write(tmp_path / "photos/a.txt", "a")
    assert message(tmp_path / spec).startswith(expected.format(tmp_path))


def test_limit_takes_evenly_spaced_samples_and_keeps_their_ids(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.csv", "text\n" + "x\n" * 10), limit=4)
    assert dataset.ids.tolist() == ["a:000000", "a:000002", "a:000005", "a:000007"]
    assert len(open_dataset(tmp_path / "a.csv", limit=99)) == 10
