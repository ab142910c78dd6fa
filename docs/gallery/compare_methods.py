"""
Compare attribution methods
===========================

A sheet has a photo in each row and a method in each column.
"""

import skimage.data
from PIL import Image

import actgrid

photos = [actgrid.demo.photo(), Image.fromarray(skimage.data.coffee())]
methods = ["gradcam", "integrated_gradients", "occlusion"]
actgrid.compare_methods("demo", photos, methods)
