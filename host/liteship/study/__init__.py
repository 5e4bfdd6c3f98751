"""A study: the models and .tflite files that a recipe asks for, each kept under a key of all that it depends on."""
