"""Meshes from elsewhere at random, as `foreign_files` does it for other files."""

import functools
import json
import struct

import numpy as np
import trimesh
from hypothesis import strategies as st
from PIL import Image
from trimesh.visual import TextureVisuals

from tests.foreign_files import (
    change_words,
    changed,
    changes,
    json_values,
    numbers,
    odd_words,
    paths,
    places,
    put,
    shares,
    write_decoys,
)

OBJ = """mtllib a.mtl
v -1 -1 0
v 1 -1 0
v 1 1 1
v -1 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
vn 0 0 1
usemtl paint
f 1/1/1 2/2/1 3/3/1
f 1/1/1 3/3/1 4/4/1
"""
MTL = "newmtl paint\nKd 0.8 0.5 0.5\nmap_Kd 0.png\n"


@functools.cache
def mesh_files():
    """A mesh in each format, by the name of its file."""
    box = trimesh.creation.box()
    colored = box.copy()
    colored.visual.vertex_colors = np.full((len(box.vertices), 4), 200, np.uint8)
    textured = trimesh.Trimesh(
        *(np.array(values) for values in (box.vertices, box.faces)), process=False
    )
    textured.visual = TextureVisuals(
        uv=box.vertices[:, :2], image=Image.new("RGB", (4, 4), (9, 99, 9))
    )
    gltf = trimesh.Scene([box]).export(file_type="gltf", merge_buffers=True)
    return {
        "binary.ply": colored.export(file_type="ply"),
        "a.obj": OBJ.encode(),
        "text.ply": colored.export(file_type="ply", encoding="ascii"),
        "a.gltf": gltf["model.gltf"],
        "a.glb": trimesh.Scene([textured]).export(file_type="glb"),
        "a.stl": box.export(file_type="stl"),
        "a.off": box.export(file_type="off").encode(),
    }


def glb(tree, binary):
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    return (
        b"glTF"
        + struct.pack("<III", 2, 28 + len(text) + len(binary), len(text))
        + b"JSON"
        + text
        + struct.pack("<I", len(binary))
        + b"BIN\0"
        + binary
    )


def change_glb(edits):
    """A GLB with values of its JSON replaced, its binary part as it was."""
    content = mesh_files()["a.glb"]
    length = struct.unpack_from("<I", content, 12)[0]
    tree = json.loads(content[20 : 20 + length])
    for share, new in edits:
        known = list(places(tree))
        put(tree, known[1 + int(share * (len(known) - 1))], new)
    return glb(tree, content[28 + length :])


def write_mesh(name, content, mtl):
    def write(folder):
        write_decoys(folder)
        (folder / "a.mtl").write_bytes(mtl)
        (folder / f"mesh.{name.rpartition('.')[2]}").write_bytes(content)

    return write


obj_words = st.sampled_from(
    ["1/1/1", "9/9/9", "-9", "0", "1e400", "nan", "v", "f", "9" * 20, "1//", "usemtl"]
)
whole_meshes = st.sampled_from(
    ["binary.ply", "text.ply", "a.obj", "a.glb", "a.stl", "a.off", "a.gltf"]
)
materials = st.one_of(
    st.just(MTL.encode()),
    paths.map(lambda path: MTL.replace("0.png", path).encode(errors="surrogatepass")),
    changes.map(lambda change: changed(MTL.encode(), change)),
)
mesh_writers = st.one_of(
    st.builds(
        lambda name, change, mtl: write_mesh(name, changed(mesh_files()[name], change), mtl),
        whole_meshes,
        changes,
        materials,
    ),
    st.builds(
        lambda edits, mtl: write_mesh("a.obj", change_words(OBJ.encode(), edits), mtl),
        st.lists(st.tuples(shares, st.one_of(obj_words, odd_words)), max_size=3),
        materials,
    ),
    st.builds(
        lambda edits: write_mesh("a.glb", change_glb(edits), b""),
        st.lists(st.tuples(shares, st.one_of(numbers, json_values)), min_size=1, max_size=3),
    ),
)
