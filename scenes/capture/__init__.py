"""What the importers are made of.

All of them end in a `Capture`, which becomes a scene folder (`capture`). It comes from photos or a
video (`from_photos`, which needs `photos`, `masks`, `video`, `sfm`), a COLMAP model
(`colmap_model`, `colmap_files`), a transforms.json (`transforms_capture`, `transforms`,
`transforms_camera`) or a poses_bounds.npy (`llff`).

camera_path: nerfstudio's file of a camera path.
cameras: COLMAP's, plausible and undistorted. plausible: sizes and focal lengths that can be meant.
listing: the images that a source lists. options: the flags that importers share. check_picture: the
picture of `scenes.check`.
"""
