"""DeepVoxels as a method of NerfBaselines (Kulhanek and Sattler, 2024).

`deepvoxels_spec` registers it there; `method` is what NerfBaselines then calls; `run` trains;
`scene` writes its data set as a scene folder; `views` renders its cameras.
"""
