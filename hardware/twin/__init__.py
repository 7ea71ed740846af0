"""The MuJoCo twin of the rig: model, scenes, controllers, cameras."""
