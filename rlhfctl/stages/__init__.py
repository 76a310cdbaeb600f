"""The four stages. Each has ``run(recipe, inputs, output, monitor)``; they meet only on disk."""
