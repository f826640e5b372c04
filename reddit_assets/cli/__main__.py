"""``python -m reddit_assets.cli``: how ``reddit-assets up`` starts the other parts."""

from reddit_assets.cli import main

main()
