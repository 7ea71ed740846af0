"""Object folders of others: loaded, mended or refused with a reason, cut once, and usable in scenes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mujoco
import numpy as np
import pytest
import trimesh
from dexloop.hardware.errors import BadInput
from dexloop.hardware.twin import mesh_files
from dexloop.hardware.twin.mesh_files import Cutting, cache_dir, load_solid, shape_from_mesh
from dexloop.hardware.twin.objects import add_object, shape_of
from dexloop.hardware.twin.scenes import SceneSpec, apply_scene, sample_scene
from dexloop.hardware.twin.third_party import LibraryConfig, ObjectLibrary, load_shape, nearest_colour, noun_of
from scipy.spatial import Delaunay

TOY = """<mujoco>
  <asset><material name="paint" rgba="0.1 0.25 0.75 1"/></asset>
  <worldbody>
    <body name="toy" pos="1 2 3"><freejoint/>
      <geom type="box" size=".03 .02 .04" material="paint" density="300"/>
      <body pos="0 0 .05"><geom type="sphere" size=".02" density="300"/></body>
    </body>
  </worldbody>
</mujoco>"""
COARSE = Cutting(threshold=0.5, max_pieces=8)


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEXLOOP_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A box and a ball as meshes in millimetres, and an MJCF toy."""
    trimesh.creation.box((60, 50, 90)).export(tmp_path / "red_brick_01.stl")
    trimesh.creation.icosphere(subdivisions=2, radius=30).export(tmp_path / "tennis-ball.obj")
    (tmp_path / "toy.xml").write_text(TOY)
    return tmp_path


def l_shape() -> trimesh.Trimesh:
    """An angle of 8 x 8 x 3 cm with arms of 2 cm: concave, closed."""
    outline = np.array([[0, 0], [0.08, 0], [0.08, 0.02], [0.02, 0.02], [0.02, 0.08], [0, 0.08]])
    low, high = np.column_stack([outline, np.zeros(6)]), np.column_stack([outline, np.full(6, 0.03)])
    caps = [(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5)]
    faces = [face[::-1] for face in caps] + [tuple(i + 6 for i in face) for face in caps]
    faces += [tri for k in range(6) for tri in ((k, (k + 1) % 6, (k + 1) % 6 + 6), (k, (k + 1) % 6 + 6, k + 6))]
    return trimesh.Trimesh(np.concatenate([low, high]), faces)


def test_a_folder_becomes_a_library(folder: Path) -> None:
    library = ObjectLibrary(folder, LibraryConfig(unit="mm", split="train"))
    brick, ball, toy = library.objects
    assert (brick.noun, brick.colour) == ("brick", "red")
    np.testing.assert_allclose(brick.size_m, (0.06, 0.05, 0.09), atol=1e-6)
    assert brick.mass_kg == pytest.approx(400 * 0.06 * 0.05 * 0.09, rel=1e-4)
    assert ball.noun == "tennis ball"
    assert (toy.noun, toy.colour) == ("toy", "blue")
    assert toy.mass_kg == pytest.approx(300 * (0.06 * 0.04 * 0.08 + 4 / 3 * np.pi * 0.02**3), rel=1e-3)
    np.testing.assert_allclose(toy.size_m, (0.06, 0.04, 0.11), atol=1e-6)
    with pytest.raises(BadInput, match="no object of split 'test'"):
        library.of_split("test")


def test_objects_of_a_folder_are_divided_by_content(folder: Path) -> None:
    library = ObjectLibrary(folder, LibraryConfig(unit="mm"))
    again = ObjectLibrary(folder, LibraryConfig(unit="mm"))
    assert library.objects == again.objects
    assert len({obj.fingerprint for obj in library.objects}) == 3


def test_scenes_draw_from_a_library(folder: Path) -> None:
    library = ObjectLibrary(folder, LibraryConfig(unit="mm", split="train"))
    scene = sample_scene(1, "train", 3, library=library)
    assert SceneSpec.from_json(scene.to_json()) == scene
    assert {placed.object.family for placed in scene.objects} == {"third_party"}
    spec = mujoco.MjSpec()
    apply_scene(spec, scene)
    model = spec.compile()
    for index, placed in enumerate(scene.objects):
        body = model.body(f"object_{index}")
        assert body.subtreemass[0] == pytest.approx(placed.object.mass_kg, rel=1e-3)
        assert model.jnt_bodyid[index] == body.id


def test_an_mjcf_object_is_posed_by_its_centre_and_keeps_its_looks(folder: Path) -> None:
    toy = ObjectLibrary(folder, LibraryConfig(unit="mm", split="test")).objects[2]
    spec = mujoco.MjSpec()
    pose = np.eye(4)
    pose[:3, 3] = (0.3, 0.1, 0.055)
    add_object(spec, toy, pose, "object_0")
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    solid = model.geom_contype > 0
    assert np.all(model.geom_bodyid[solid] == model.body("object_0").id), "contacts are the free body's own"
    for owned in (solid, ~solid):  # what collides and what is seen lie in the same place
        heights = data.geom_xpos[owned, 2]
        assert heights.max() + 0.02 == pytest.approx(0.11, abs=1e-6)  # the sphere's top
        assert heights.min() - 0.04 == pytest.approx(0.0, abs=1e-6)  # the box's bottom
        np.testing.assert_allclose(data.geom_xpos[owned, :2], [[0.3, 0.1]] * 2, atol=1e-9)
    assert np.all(model.geom_priority[solid] == 1)
    assert np.all(model.geom_condim[solid] == 6)
    np.testing.assert_allclose(model.mat_rgba[0], (0.1, 0.25, 0.75, 1), atol=1e-6)


def test_an_mjcf_object_weighs_and_balances_as_its_file_says(folder: Path) -> None:
    toy = ObjectLibrary(folder, LibraryConfig(unit="mm", split="test")).objects[2]
    spec = mujoco.MjSpec()
    add_object(spec, toy, np.eye(4), "object_0")
    model = spec.compile()
    body = model.body("object_0").id
    box, ball = 300 * 0.06 * 0.04 * 0.08, 300 * 4 / 3 * np.pi * 0.02**3
    com = 0.05 * ball / (box + ball)  # above the box's middle, which lies 1.5 cm below the object's centre
    np.testing.assert_allclose(model.body_ipos[body], (0, 0, com - 0.015), atol=1e-6)
    sides = np.array([0.06, 0.04, 0.08])
    moments = box / 12 * (np.square(sides).sum() - np.square(sides)) + 0.4 * ball * 0.02**2
    moments[:2] += box * com**2 + ball * (0.05 - com) ** 2
    np.testing.assert_allclose(np.sort(model.body_inertia[body]), np.sort(moments), rtol=1e-4)


def test_the_manifest_overrules_names_and_masses(folder: Path) -> None:
    facts = {"toy.xml": {"noun": "robot", "colour": "green", "mass_kg": 0.2, "friction": 0.9}}
    (folder / "library.json").write_text(json.dumps(facts))
    toy = ObjectLibrary(folder, LibraryConfig(unit="mm", split="test")).objects[2]
    assert (toy.noun, toy.colour, toy.mass_kg, toy.friction[0]) == ("robot", "green", 0.2, 0.9)
    spec = mujoco.MjSpec()
    add_object(spec, toy, np.eye(4), "object_0")
    model = spec.compile()
    assert model.body("object_0").subtreemass[0] == pytest.approx(0.2, rel=1e-3)
    assert np.all(model.geom_friction[model.geom_contype > 0, 0] == 0.9)


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ('{"toy.xml": {"mass": 1}}', "unknown entry 'mass'"),
        ('{"toy.xml": {"mass_kg": "heavy"}}', "expected a float"),
        ('{"toy.xml": {"colour": "mauve"}}', "'mauve' is unknown"),
        ('{"gone.xml": {}}', "not in the folder"),
        ('{"toy.xml": {"mass_kg": 40}}', "would weigh 40 kg"),
        ("[1]", "expected"),
        ("{", "not JSON"),
    ],
)
def test_a_wrong_manifest_is_refused(folder: Path, facts: str, match: str) -> None:
    (folder / "library.json").write_text(facts)
    with pytest.raises(BadInput, match=match):
        ObjectLibrary(folder, LibraryConfig(unit="mm"))


def test_a_concave_mesh_is_cut_once_and_its_notch_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "angle.obj"
    l_shape().export(path)
    cut = shape_from_mesh(path, "m", COARSE)
    assert len(cut.shape.solids) >= 2
    assert cut.shape.solid_volume_m3 == pytest.approx(l_shape().volume, rel=0.1)
    notch = np.array([[0.065, 0.065, 0.015], [0.03, 0.03, 0.015]]) - (0.04, 0.04, 0.015)  # in the centred frame
    for piece in cut.shape.solids:
        assert piece.mesh is not None
        assert np.all(Delaunay(piece.mesh.vertices).find_simplex(notch) < 0), "a piece bridges the notch"
    assert len(list(cache_dir().glob("*.npz"))) == 1

    def never(*_: object) -> None:
        raise AssertionError("the cache should have answered")

    monkeypatch.setattr(mesh_files, "_convex_pieces", never)
    again = shape_from_mesh(path, "m", COARSE)
    assert again.key == cut.key
    np.testing.assert_array_equal(again.shape.points(), cut.shape.points())
    with pytest.raises(AssertionError, match="cache should have answered"):
        shape_from_mesh(path, "m", Cutting(threshold=0.6, max_pieces=8))  # another question


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "block.stl"
    trimesh.creation.box((0.05, 0.05, 0.05)).export(path)
    first = shape_from_mesh(path, "m", COARSE)
    (stored,) = cache_dir().glob("*.npz")
    for damage in (b"", b"PK\x03\x04 torn", stored.read_bytes()[: stored.stat().st_size // 2]):
        stored.write_bytes(damage)
        again = shape_from_mesh(path, "m", COARSE)
        np.testing.assert_array_equal(again.shape.points(), first.shape.points())
    assert not list(cache_dir().glob("*.part"))


def test_a_small_hole_is_filled_and_a_sheet_refused(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.03)
    keep = np.ones(len(ball.faces), bool)
    keep[5] = False
    ball.update_faces(keep)
    ball.export(tmp_path / "holed.ply")
    mended = load_solid(tmp_path / "holed.ply", "m")
    assert mended.is_watertight
    assert mended.volume > 0
    sheet = trimesh.Trimesh([[0, 0, 0], [0.1, 0, 0], [0.1, 0.1, 0], [0, 0.1, 0.01]], [[0, 1, 2], [0, 2, 3]])
    sheet.export(tmp_path / "sheet.obj")
    with pytest.raises(BadInput, match="not a closed solid|encloses"):
        load_solid(tmp_path / "sheet.obj", "m")


def test_an_inside_out_mesh_is_turned(tmp_path: Path) -> None:
    box = trimesh.creation.box((0.05, 0.04, 0.03))
    box.invert()
    box.export(tmp_path / "box.ply")
    assert load_solid(tmp_path / "box.ply", "m").volume == pytest.approx(6e-5, rel=1e-6)


def test_the_unit_is_asked_for_not_guessed(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"90 m long.*unit='mm'"):
        ObjectLibrary(folder)
    with pytest.raises(BadInput, match="unit 'furlong' is unknown"):
        LibraryConfig(unit="furlong")


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no folder"):
        ObjectLibrary(tmp_path / "missing")
    with pytest.raises(BadInput, match="holds no object"):
        ObjectLibrary(tmp_path)
    (tmp_path / "broken.stl").write_bytes(os.urandom(40))
    with pytest.raises(BadInput, match=r"broken\.stl"):
        ObjectLibrary(tmp_path)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("<body><geom size='.03'/></body><body><geom size='.03'/></body>", "has 2 bodies"),
        ("<body><geom size='.03'/><body><joint name='lid'/><geom size='.02'/></body></body>", "joints lid"),
        ("<body><geom size='.03' contype='0' conaffinity='0'/></body>", "no geom that collides"),
        ("<body><geom size='30'/></body>", "60 m long"),
        ("<geom size='.1'/><body><geom size='.03'/></body>", "fixed to the world"),
        ("<body><geom size='.03' nonsense='1'/></body>", "not MJCF"),
    ],
)
def test_mjcf_that_is_not_one_rigid_object_is_refused(tmp_path: Path, body: str, match: str) -> None:
    (tmp_path / "thing.xml").write_text(f"<mujoco><worldbody>{body}</worldbody></mujoco>")
    with pytest.raises(BadInput, match=match):
        ObjectLibrary(tmp_path)


def test_a_file_that_changed_or_went_is_noticed(folder: Path) -> None:
    brick = ObjectLibrary(folder, LibraryConfig(unit="mm")).objects[0]
    assert shape_of(brick) is load_shape(brick)
    from dexloop.hardware.twin.third_party import _load_shape

    trimesh.creation.box((60, 50, 80)).export(folder / "red_brick_01.stl")
    _load_shape.cache_clear()
    with pytest.raises(BadInput, match="has changed"):
        shape_of(brick)
    (folder / "red_brick_01.stl").unlink()
    with pytest.raises(BadInput, match="is gone"):
        shape_of(brick)


def test_names_and_colours() -> None:
    assert noun_of("red_coffee-mug_01") == "coffee mug"
    assert noun_of("007") == "object"
    assert nearest_colour((0.8, 0.1, 0.1)) == "red"
