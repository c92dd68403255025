# SPDX-License-Identifier: Apache-2.0
"""What the pages name is there: files, targets of make, the version in the changelog."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')]


def test_the_changelog_is_one_that_bloom_reads_and_tells_of_the_version():
    changelog = pytest.importorskip('catkin_pkg.changelog').get_changelog_from_path(ROOT)
    versions = {version: entries for version, _, entries in changelog.foreach_version()}
    assert ElementTree.parse(ROOT / 'package.xml').findtext('version') in versions
    assert all(versions.values())


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_a_page_links_to_files_that_there_are(page):
    for target in re.findall(r'\]\(([^)#]+)', page.read_text()):
        assert '://' in target or (page.parent / target).exists(), target


@pytest.mark.parametrize('page', ['docs/architecture.md', 'CONTRIBUTING.md'])
def test_the_files_that_a_page_sends_a_reader_to_are_there(page):
    named = re.findall(r'`([a-z_]+/[\w/.-]+)`', (ROOT / page).read_text())
    assert named
    for name in named:
        assert (ROOT / name).exists(), name


def test_a_first_visit_ends_within_150_lines_and_asks_only_for_targets_that_there_are():
    readme = (ROOT / 'README.md').read_text()
    assert len(readme.splitlines()) <= 150
    targets = set(re.findall(r'^([a-z-]+):(?!=)', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    texts = [page.read_text() for page in PAGES]
    wanted = {name for text in texts for name in re.findall(r'(?:^|`)make ([a-z-]+)', text, re.M)}
    assert {'demo', 'test'} <= wanted <= targets
