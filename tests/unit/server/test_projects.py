"""The projects that connected last."""

from __future__ import annotations

from yolo_backend.server.projects import ConnectedProjects


def test_a_project_that_connects_again_is_the_newest() -> None:
    projects = ConnectedProjects()
    for project in ("1.17", "2.17", "3.17", "1.17"):
        projects.refused(project, f"for {project}")
    assert [(each.project, each.reason) for each in projects.newest_first()] == [
        ("1", "for 1.17"),
        ("3", "for 3.17"),
        ("2", "for 2.17"),
    ]


def test_the_oldest_of_very_many_projects_are_forgotten() -> None:
    projects = ConnectedProjects()
    for number in range(250):
        projects.refused(f"{number}.17", "no")
        projects.refused("0.17", "no")
    assert [each.project for each in projects.newest_first()] == ["0", *map(str, range(249, 50, -1))]
