import numpy as np
from PIL import Image

from diffident.report.contact_sheet import Cell, draw_contact_sheet, save_contact_sheet


def make_cell(colour: str = "red", *, suspect: bool = True, size=(8, 8), given="cat", nearest="dog") -> Cell:
    return Cell(image=Image.new("RGB", size, colour), given=given, nearest=nearest, suspect=suspect)


def test_each_picture_is_in_its_place():
    sheet = draw_contact_sheet([make_cell("red"), make_cell("lime")], title="t", columns=2, tile=100)
    assert sheet.getpixel((8 + 50, 40 + 50)) == (255, 0, 0)
    assert sheet.getpixel((8 + 108 + 50, 40 + 50)) == (0, 255, 0)


def test_a_suspects_nearest_label_is_red_and_another_is_not():
    def num_red(sheet):
        pixels = np.asarray(sheet).astype(int)
        return int(((pixels[..., 0] > 150) & (pixels[..., 1] < 80)).sum())

    blue = [make_cell("blue", suspect=suspect) for suspect in (True, False)]
    assert num_red(draw_contact_sheet(blue[:1], title="t")) > 100
    assert num_red(draw_contact_sheet(blue[1:], title="t")) == 0


def test_long_names_stay_inside_their_tile():
    sheet = draw_contact_sheet([make_cell("white", given="W" * 10_000, suspect=False)], title="t", tile=100)
    right_of_tile = np.asarray(sheet)[40:, 110:]
    assert (right_of_tile == 255).all()


def test_no_samples_gives_a_sheet_that_says_so():
    sheet = draw_contact_sheet([], title="Suspects; given label, then the nearest class")
    assert sheet.size == (640, 44)
    assert sheet.tobytes() == draw_contact_sheet([], title="Suspects").tobytes()
    assert sheet.tobytes() != draw_contact_sheet([], title="Suspect").tobytes()


def test_a_long_title_is_wrapped_and_nothing_is_cut_off():
    sheet = draw_contact_sheet([make_cell("white", given=" ", suspect=False)], title="mmmm " * 30, tile=100)
    ink = np.asarray(sheet.convert("L")) < 128
    lines = [ink[12 + 20 * number : 32 + 20 * number].any() for number in range(4)]
    assert lines == [True, True, True, True]
    assert not ink[:, 632:].any()
    assert sheet.getpixel((8 + 50, 20 + 20 * 4 + 50)) == (255, 255, 255)
    short = draw_contact_sheet([make_cell("white", given=" ", suspect=False)], title="t", tile=100)
    assert sheet.size == (short.size[0], short.size[1] + 60)


def test_grey_palette_and_wide_images_are_drawn(tmp_path):
    images = [Image.new("L", (8, 8), 128), Image.new("P", (300, 20)), Image.new("RGBA", (20, 300))]
    cells = [Cell(image=image, given="", nearest="x", suspect=True) for image in images]
    save_contact_sheet(draw_contact_sheet(cells, title="t"), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.mode == "RGB"
