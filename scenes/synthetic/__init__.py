"""What `scenes.render` is made of.

objects: the synthetic objects; textures: theirs. mesh_file: meshes from files. surface: either of
them as arrays for the ray caster. raycast: images and depth on the CPU; first_hits: which triangle
a ray hits. render_views: a scene's views, in several processes.
"""
