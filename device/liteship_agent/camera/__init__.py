"""The deployed model on live frames: sources of pictures, and the pipeline that labels them."""
