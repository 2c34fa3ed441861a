"""The one setting that pyproject.toml cannot hold.

An editable install puts the checkout itself on Python's path. By default setuptools adds a finder instead, which comes too late
where the current directory has a folder asrprune, such as the one above a checkout: Python then imports that folder, empty.
"""

from setuptools import setup

setup(options={"editable_wheel": {"mode": "compat"}})
