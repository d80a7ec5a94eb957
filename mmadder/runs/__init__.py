"""What trainings leave in their work directories, read and shown."""
