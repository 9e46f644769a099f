from setuptools import find_packages, setup

package_name = "fleetbus_action_bridge"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + package_name]),
        ("share/" + package_name, ["package.xml"]),
    ],
    install_requires=["setuptools", "nats-py>=2.6"],
    zip_safe=True,
    maintainer="You",
    maintainer_email="you@example.com",
    description="Forwards the goals of a FollowJointTrajectory action client to a robot of a fleetbus fleet.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["bridge = fleetbus_action_bridge.bridge:main"]},
)
