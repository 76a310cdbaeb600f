"""Downloads from the Hugging Face Hub that a recipe needs: sizes, access, and the transfer."""
