"""covey.conn"""
