"""Run files for people: frames, reports, pictures, exports."""
