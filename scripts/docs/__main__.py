"""`python -m scripts.docs`: see the package."""

import sys

from scripts.docs import staging

if __name__ == "__main__":
    if sys.argv[1:] == ["--stage"]:
        print(staging.stage())
    elif sys.argv[1:]:
        sys.exit(f"found {sys.argv[1]}; expected --stage or nothing; fix: see scripts/docs/__init__.py")
    else:
        from scripts.docs import configuration, recipes  # they read the schema; staging needs nothing installed

        configuration.PAGE.write_text(configuration.page(), encoding="utf-8")
        recipes.PAGE.write_text(recipes.page(), encoding="utf-8")
        print(configuration.PAGE, recipes.PAGE, sep="\n")
