"""What `scenes.render` is made of: textured objects, meshes from files, and a ray caster that runs
on the CPU."""
