"""Files and folders, whatever is in them.

folders: new folders, whole or not at all, and locks. glb: triangle meshes for other programs.
images: pictures of any bit depth. points: sparse points. runs: checkpoints, found. tensors: files
of tensors. untrusted: what files from elsewhere may be and do.
"""
